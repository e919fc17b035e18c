//! UCI text to words: lines, quotes, backslashes, comments and `;`, as libuci's `file.c` takes them.
//!
//! libuci parses in place, in a buffer that holds one line and grows by the next line where a quote or a backslash asks
//! for it. Some of its habits follow from that, and are kept here since `uci show` is what an operator checks with:
//! - a `;` glued to a word with neither quote nor backslash ends the line: `option a b;option c d` sets only `a`;
//! - any other `;` stands for one empty word: in `config a ;option b c` it takes the place of the section's name, and
//!   what follows is one word too many;
//! - where that word is the one that ends a command, the next command starts right behind it, and a newline there is
//!   an unknown command: `option a 'b';` must not end a line.

/// What is wrong with the text, and the byte where it was seen.
pub(super) struct Syntax {
    pub(super) at: usize,
    pub(super) what: String,
}

impl Syntax {
    pub(super) fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

/// The first word of a command.
pub(super) struct Command<'a> {
    pub(super) at: usize,
    pub(super) name: &'a [u8],
    /// The text ended right behind the name.
    pub(super) cut: bool,
}

/// Reads a text command by command and word by word.
pub(super) struct Words<'a> {
    text: &'a [u8],
    /// The next byte.
    pos: usize,
    /// One past the last byte of the lines fetched so far: what libuci has in its buffer ends here.
    end: usize,
    /// `line` is the number of the line that `counted` lies in.
    counted: usize,
    line: u32,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, pos: 0, end: 0, counted: 0, line: 1 }
    }

    /// Leaves what remains of this line and goes to the next; false at the end of the text.
    pub(super) fn next_line(&mut self) -> bool {
        let more = self.fetch();
        self.skip_space();
        more
    }

    /// The name of the next command on this line; none where nothing or a comment is left.
    ///
    /// Only spaces and tabs end it: a newline, a quote or a `;` is part of the name, which is then no known one.
    pub(super) fn command(&mut self) -> Option<Command<'a>> {
        let is_blank = |c: u8| c == b' ' || c == b'\t';
        while self.cur().is_some_and(is_blank) {
            self.pos += 1;
        }
        let at = self.pos;
        while self.cur().is_some_and(|c| !is_blank(c)) {
            self.pos += 1;
        }
        let name = self.text.get(at..self.pos)?;
        let cut = self.cur().is_none();
        if !cut {
            self.pos += 1;
        }
        match name.first() {
            None | Some(b'#') => None,
            Some(_) => Some(Command { at, name, cut }),
        }
    }

    /// The next word of this command, without its quotes; empty where none is left.
    pub(super) fn word(&mut self) -> Result<Vec<u8>, Syntax> {
        let mut word = Vec::new();
        self.skip_space();
        if self.cur() == Some(b';') {
            self.pos += 1;
            return Ok(word);
        }
        let start = self.pos;
        loop {
            match self.cur() {
                None => return Ok(word),
                Some(b'#') => {
                    self.pos = self.end;
                    return Ok(word);
                }
                Some(b';') => {
                    // libuci closes the word with a NUL, here on the `;` itself, and then sees no more of the line.
                    if word.len() == self.pos - start {
                        self.pos = self.end;
                    }
                    return Ok(word);
                }
                Some(quote @ (b'\'' | b'"')) => self.quoted(quote, &mut word)?,
                Some(b'\\') => self.escaped(&mut word),
                Some(c) => {
                    word.push(c);
                    self.pos += 1;
                }
            }
            if self.cur().is_some_and(is_space) {
                self.pos += 1;
                return Ok(word);
            }
        }
    }

    /// Where the next word starts, for messages.
    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// The number of the line that holds byte `at`, which is never before one asked for earlier.
    pub(super) fn line(&mut self, at: usize) -> u32 {
        for &c in self.text.get(self.counted..at).unwrap_or_default() {
            if c == b'\n' {
                self.line = self.line.saturating_add(1);
            }
        }
        self.counted = self.counted.max(at);
        self.line
    }

    fn cur(&self) -> Option<u8> {
        self.text.get(..self.end)?.get(self.pos).copied()
    }

    /// Makes one more line visible and goes to its start; false at the end of the text.
    fn fetch(&mut self) -> bool {
        self.pos = self.end;
        let rest = self.text.get(self.end..).unwrap_or_default();
        self.end += rest.iter().position(|&c| c == b'\n').map_or(rest.len(), |at| at + 1);
        self.end > self.pos
    }

    fn skip_space(&mut self) {
        while self.cur().is_some_and(is_space) {
            self.pos += 1;
        }
    }

    /// Takes `'…'` or `"…"`, over as many lines as it takes.
    fn quoted(&mut self, quote: u8, word: &mut Vec<u8>) -> Result<(), Syntax> {
        let open = self.pos;
        self.pos += 1;
        loop {
            match self.cur() {
                None => {
                    if !self.fetch() {
                        return Err(Syntax::new(
                            open,
                            format!("the {} opened here is never closed", char::from(quote)),
                        ));
                    }
                }
                Some(c) if c == quote => {
                    self.pos += 1;
                    return Ok(());
                }
                Some(b'\\') if quote == b'"' => self.escaped(word),
                Some(c) => {
                    word.push(c);
                    self.pos += 1;
                }
            }
        }
    }

    /// Takes `\c` as `c`; at the end of a line it joins the next one instead.
    fn escaped(&mut self, word: &mut Vec<u8>) {
        self.pos += 1;
        match self.text.get(self.pos..self.end).unwrap_or_default() {
            [] | b"\n" | b"\r\n" => {
                self.fetch();
            }
            [c, ..] => {
                word.push(*c);
                self.pos += 1;
            }
        }
    }
}

/// C's `isspace` in the C locale: unlike `u8::is_ascii_whitespace`, with the vertical tab.
fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}
