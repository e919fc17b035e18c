//! The JSON of our own records and of `--json`.
//!
//! [`writer`] writes it. serde_json's reader weighs 28 KiB of the compressed MIPS binary, with the code that serde's derive makes
//! for each record and the floating point that no record has. This one takes objects, arrays, texts, whole numbers and truth values.

use serde::Serialize;

use self::writer::{Unwritten, Writer};
use crate::error::{Error, Result};
use crate::sum::Sum;

mod writer;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`, and what is not there.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number that is not negative.
    Number(u64),
    /// A text. What is read of a record goes far, and no code stands there to drop it: the document stays until the program ends.
    Text(&'static str),
    /// An array.
    List(Vec<Json>),
    /// An object, in the order of the file.
    Map(Vec<(&'static str, Json)>),
}

/// What can be read from a record.
pub trait FromJson: Sized {
    /// Takes it from a value. The error names the key that is missing or wrong.
    fn from_json(json: &Json) -> Result<Self>;
}

/// Writes a document. Nothing of ours that is written down can fail but a path that is no text; serde_json's reasons would bring
/// all of its texts along.
pub fn write(document: &impl Serialize) -> Result<Vec<u8>> {
    written(&|writer| document.serialize(writer))
}

#[inline(never)]
fn written(document: &dyn Fn(&mut Writer) -> Result<(), Unwritten>) -> Result<Vec<u8>> {
    let mut writer = Writer::default();
    match document(&mut writer) {
        Ok(()) => Ok(writer.0),
        Err(_) => Err(Error::failed("write JSON: it would hold what is no text")),
    }
}

/// How deep arrays and objects may lie in one another; ours need four.
const DEPTH: u32 = 16;

impl Json {
    /// Reads one document. The error says where it stops to be JSON.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let mut reader = Reader { text: "", at: 0 };
        let value = match std::str::from_utf8(text.to_vec().leak()) {
            Ok(text) => {
                reader.text = text;
                reader.value(DEPTH)
            }
            Err(err) => {
                reader.at = err.valid_up_to();
                None
            }
        };
        reader.blanks();
        match value {
            Some(value) if reader.at == text.len() => Ok(value),
            _ => Err(Error::damaged(format_args!("it is not JSON from byte {} on", reader.at))),
        }
    }

    /// The value of a key; [`Json::Null`] where there is none.
    pub fn get(&self, key: &str) -> &Json {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(name, _)| *name == key).map_or(&Json::Null, |(_, value)| value)
            }
            _ => &Json::Null,
        }
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Result<&'static str> {
        match self.get(key) {
            Self::Text(text) => Ok(text),
            _ => Err(wrong(key, "text")),
        }
    }

    /// The number of a key.
    pub fn number(&self, key: &str) -> Result<u64> {
        match self.get(key) {
            Self::Number(number) => Ok(*number),
            _ => Err(wrong(key, "number")),
        }
    }

    /// The number of a key that is written where it is not 0. Most records have none: no error is made for those.
    pub fn count(&self, key: &str) -> u64 {
        match self.get(key) {
            Self::Number(number) => *number,
            _ => 0,
        }
    }

    /// Is the key there, and true?
    pub fn is_true(&self, key: &str) -> bool {
        *self.get(key) == Self::Bool(true)
    }

    /// The array of a key.
    pub fn list(&self, key: &str) -> Result<&[Json]> {
        match self.get(key) {
            Self::List(list) => Ok(list),
            _ => Err(wrong(key, "list")),
        }
    }
}

#[cold]
fn wrong(key: &str, what: &str) -> Error {
    Error::damaged(format_args!("`{key}` is no {what}, or is missing"))
}

struct Reader {
    text: &'static str,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes over one byte, which must be next.
    fn byte(&mut self, wanted: u8) -> Option<()> {
        if self.peek()? != wanted {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// Passes over `token`, which must be next.
    fn token(&mut self, token: &str) -> Option<()> {
        self.text.get(self.at..)?.strip_prefix(token)?;
        self.at += token.len();
        Some(())
    }

    fn value(&mut self, depth: u32) -> Option<Json> {
        let depth = depth.checked_sub(1)?;
        self.blanks();
        match self.peek()? {
            b'{' => {
                // As many as a record of ours has.
                let mut entries = Vec::with_capacity(8);
                self.items(b'}', |reader| {
                    let key = reader.string()?;
                    reader.blanks();
                    reader.byte(b':')?;
                    entries.push((key, reader.value(depth)?));
                    Some(())
                })?;
                Some(Json::Map(entries))
            }
            b'[' => {
                let mut list = Vec::new();
                self.items(b']', |reader| {
                    list.push(reader.value(depth)?);
                    Some(())
                })?;
                Some(Json::List(list))
            }
            b'"' => self.string().map(Json::Text),
            b'0'..=b'9' => self.number().map(Json::Number),
            b't' => self.token("true").map(|()| Json::Bool(true)),
            b'f' => self.token("false").map(|()| Json::Bool(false)),
            _ => self.token("null").map(|()| Json::Null),
        }
    }

    /// What lies between brackets, with commas between.
    fn items(&mut self, end: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.blanks();
        if self.peek()? == end {
            self.at += 1;
            return Some(());
        }
        loop {
            self.blanks();
            item(self)?;
            self.blanks();
            match self.peek()? {
                b',' => self.at += 1,
                last if last == end => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.product(10)?.checked_add(u64::from(digit - b'0'))?;
            self.at += 1;
        }
        Some(number)
    }

    fn string(&mut self) -> Option<&'static str> {
        self.byte(b'"')?;
        let mut text = String::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let plain = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
            let part = rest.get(..plain)?;
            self.at += plain;
            let end = self.peek()?;
            self.at += 1;
            // Most have nothing escaped, and lie there as they are.
            if end == b'"' && text.is_empty() {
                return Some(part);
            }
            text.push_str(part);
            match end {
                b'"' => return Some(text.leak()),
                b'\\' => text.push(self.escaped()?),
                _ => return None,
            }
        }
    }

    /// What follows a backslash. Our writer escapes nothing above U+001F, so halves of surrogate pairs are none of ours.
    fn escaped(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let digits = self.text.get(self.at..self.at.checked_add(4)?)?;
                self.at += 4;
                return char::from_u32(u32::from_str_radix(digits, 16).ok()?);
            }
            _ => return None,
        };
        Some(plain.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_serde_writes_comes_back() {
        let odd = "q\"uote \\ / \n \u{1} \u{7f} ä 😀";
        let text =
            serde_json::json!({"n": u64::MAX, "t": odd, "b": [true, false, null], "o": {"e": {}, "l": []}})
                .to_string();
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(json.number("n").unwrap(), u64::MAX);
        assert_eq!(json.text("t").unwrap(), odd);
        assert_eq!(json.list("b").unwrap(), [Json::Bool(true), Json::Bool(false), Json::Null]);
        assert_eq!(json.get("o").get("l"), &Json::List(Vec::new()));
        assert_eq!(json.get("nothing"), &Json::Null);
        assert!(json.text("n").is_err() && json.number("t").is_err() && !json.is_true("t"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "[1 2]",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "tru",
            "01x",
            "1.5",
            "-1",
            "1e3",
            "18446744073709551616",
            "{} {}",
            "\"\n\"",
            "{a:1}",
            "\"\\",
        ] {
            assert!(Json::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Json::parse(b"\"\xff\"").is_err());
        let deep = |n| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Json::parse(deep(16).as_bytes()).is_ok());
        assert!(Json::parse(deep(100_000).as_bytes()).is_err());
    }
}
