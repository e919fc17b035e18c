//! Writes what serde's derive describes as JSON on one line.
//!
//! Texts are serde_json's. Its writer of everything else asks after each comma whether it could be written, and is made anew for
//! each kind of value: in memory nothing fails.

use std::fmt;

use serde::ser::{self, Impossible, Serialize, Serializer};

/// What cannot be written: a path that is no text, and what no document of ours has.
#[derive(Debug)]
pub struct Unwritten;

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is no text")
    }
}

impl std::error::Error for Unwritten {}

impl ser::Error for Unwritten {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Result<T = (), E = Unwritten> = std::result::Result<T, E>;

/// The text so far.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    #[inline(never)]
    fn put(&mut self, text: &[u8]) {
        self.0.extend_from_slice(text);
    }

    #[inline(never)]
    fn text(&mut self, text: &str) -> Result {
        let text = serde_json::to_vec(text).map_err(|_| Unwritten)?;
        self.put(&text);
        Ok(())
    }

    /// A comma, but before the first.
    #[inline(never)]
    fn next(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[')) {
            self.0.push(b',');
        }
    }

    #[inline(never)]
    fn key(&mut self, key: &str) -> Result {
        self.next();
        self.text(key)?;
        self.0.push(b':');
        Ok(())
    }
}

/// An array or an object that was begun, and what ends it.
pub struct Open<'a>(&'a mut Writer, u8);

impl Open<'_> {
    fn close(self) -> Result {
        self.0.0.push(self.1);
        Ok(())
    }
}

impl ser::SerializeSeq for Open<'_> {
    type Ok = ();
    type Error = Unwritten;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.0.next();
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result {
        self.close()
    }
}

impl ser::SerializeMap for Open<'_> {
    type Ok = ();
    type Error = Unwritten;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        self.0.next();
        key.serialize(&mut *self.0)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.0.put(b":");
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result {
        self.close()
    }
}

impl ser::SerializeStruct for Open<'_> {
    type Ok = ();
    type Error = Unwritten;

    #[inline(never)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result {
        self.0.key(key)?;
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result {
        self.close()
    }
}

/// Kinds of value that no document of ours has.
macro_rules! none_of_ours {
    ($($name:ident($kind:ty);)*) => { $(
        fn $name(self, _: $kind) -> Result {
            Err(Unwritten)
        }
    )* };
}

/// Whole numbers, as the widest of them.
macro_rules! numbers {
    ($($name:ident($kind:ty);)*) => { $(
        fn $name(self, number: $kind) -> Result {
            self.serialize_u64(number.into())
        }
    )* };
}

impl<'a> Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Unwritten;
    type SerializeSeq = Open<'a>;
    type SerializeTuple = Impossible<(), Unwritten>;
    type SerializeTupleStruct = Impossible<(), Unwritten>;
    type SerializeTupleVariant = Impossible<(), Unwritten>;
    type SerializeMap = Open<'a>;
    type SerializeStruct = Open<'a>;
    type SerializeStructVariant = Impossible<(), Unwritten>;

    none_of_ours! {
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_bytes(&[u8]);
        serialize_unit_struct(&'static str);
    }

    numbers! {
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
    }

    #[inline(never)]
    fn serialize_u64(self, number: u64) -> Result {
        self.put(number.to_string().as_bytes());
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result {
        self.put(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_str(self, text: &str) -> Result {
        self.text(text)
    }

    fn serialize_none(self) -> Result {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result {
        self.put(b"null");
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result {
        Err(Unwritten)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'a>> {
        self.put(b"[");
        Ok(Open(self, b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        Err(Unwritten)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
        Err(Unwritten)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        Err(Unwritten)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Open<'a>> {
        self.put(b"{");
        Ok(Open(self, b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a>> {
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        Err(Unwritten)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::Serialize;

    #[derive(Serialize, Default)]
    struct Empty {}

    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
    }

    #[derive(Serialize)]
    struct Inner {
        text: String,
        list: Vec<Option<u64>>,
    }

    #[derive(Serialize)]
    struct Outer {
        #[serde(flatten)]
        inner: Inner,
        word: Word,
        yes: bool,
        number: u32,
        unit: (),
        empty: Empty,
        none: Vec<Empty>,
        two: Vec<Empty>,
        path: std::path::PathBuf,
        #[serde(skip_serializing_if = "Option::is_none")]
        left_out: Option<u64>,
    }

    fn outer(path: &std::ffi::OsStr) -> Outer {
        let inner =
            Inner { text: "q\"\\ \n\u{1}ä😀{".to_owned(), list: vec![Some(u64::MAX), None, Some(0)] };
        Outer {
            inner,
            word: Word::One,
            yes: true,
            number: 7,
            unit: (),
            empty: Empty {},
            none: Vec::new(),
            two: vec![Empty {}, Empty {}],
            path: path.into(),
            left_out: None,
        }
    }

    #[test]
    fn it_writes_what_serde_json_writes() {
        let document = vec![outer("/a".as_ref()), outer("[".as_ref())];
        assert_eq!(super::super::write(&document).unwrap(), serde_json::to_vec(&document).unwrap());
    }

    #[test]
    fn a_path_that_is_no_text_is_an_error() {
        use std::os::unix::ffi::OsStrExt;
        assert!(super::super::write(&outer(std::ffi::OsStr::from_bytes(b"/\xff"))).is_err());
    }
}
