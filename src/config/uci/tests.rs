//! The grammar, rule by rule. Whether OpenWrt agrees is for `tests/uci_judge.rs` to say.

use super::*;

/// One line per section, as `TYPE[ NAME]: OPTION=VALUE…`, a list as `[A|B]`.
fn read(text: &[u8]) -> String {
    let package = match parse(text, "f") {
        Ok(package) => package,
        Err(err) => return err.to_string(),
    };
    let mut out = Vec::new();
    for section in &package.sections {
        let name = section.name.as_ref().map_or(String::new(), |name| format!(" {name}"));
        let mut line = format!("{}{name}:", section.kind);
        for option in &section.options {
            let value = match &option.value {
                Value::One(value) => value.escape_ascii().to_string(),
                Value::Many(items) => {
                    let items: Vec<_> = items.iter().map(|item| item.escape_ascii().to_string()).collect();
                    format!("[{}]", items.join("|"))
                }
            };
            line += &format!(" {}={value}", option.name);
        }
        out.push(line);
    }
    out.join("\n")
}

#[test]
fn what_is_read() {
    let table: &[(&str, &str)] = &[
        ("", ""),
        ("# nothing\n\n \t\n", ""),
        ("config t 'n'\n\toption a 'b'\n", "t n: a=b"),
        ("c t n\no a b\nl m 1\nl m 2\np x-y", "t n: a=b m=[1|2]"),
        ("package x\r\nconfig t\r\noption a b\r\n", "t: a=b"),
        // Comments, also in mid-word when unquoted.
        ("config t # c\noption a b#c\noption d 'e#f'#g\noption h \\#i", "t: a=b d=e#f h=#i"),
        // Pieces join.
        ("config t\noption a 'b'\"c\"d'e'", "t: a=bcde"),
        ("config t\noption a 'it'\\''s'", "t: a=it\\\'s"),
        // Backslashes.
        ("config t\noption a '\\n'\noption b \"\\n\\\"\"\noption c \\n\\ o", "t: a=\\\\n b=n\\\" c=n o"),
        ("config t\noption a b\\\nc\noption d \"e\\\nf\"", "t: a=bc d=ef"),
        ("config t\noption a b\\\r\nc", "t: a=bc"),
        ("config t\noption a b\\", "t: a=b"),
        ("config t\noption \\\na b\\\n # c", "t: a=b"),
        // Newlines in quotes.
        ("config t\noption a 'b\nc'\noption d \"e\n#f\n\"", "t: a=b\\nc d=e\\n#f\\n"),
        // Separators.
        ("config t 'n'; option a 'b'; option c d", "t n: a=b c=d"),
        ("config t n;option a b", "t n:"),
        ("config t ;;option a b;option c d", "t: a=b"),
        (
            "config t\n;",
            "f:2: @t[0]: `;` is no UCI command: config, option, list, package, or # for a comment",
        ),
        ("config t\noption a;b c", "t:"),
        // Merging.
        ("config t n\noption a 1\noption b 1\nconfig u\nconfig t n\noption a 2", "t n: b=1 a=2\nu:"),
        ("config t\nconfig t\noption a 1", "t:\nt: a=1"),
        ("config t ''\noption a 1\nconfig t ''", "t: a=1\nt:"),
        // Options and lists.
        ("config t\noption a 1\noption b 1\noption a 1", "t: a=1 b=1"),
        ("config t\noption a 1\noption a 2", "t: a=2"),
        ("config t\noption a 1\nlist a 2\nlist a 3", "t: a=[1|2|3]"),
        ("config t\nlist a 2\noption a 1", "t: a=1"),
        ("config t\noption a ''\noption b\noption c 1\noption c ''", "t: c=1"),
        ("config t\nlist a ''\nlist a\nlist a 1\noption a ''", "t: a=[||1]"),
    ];
    for (text, want) in table {
        assert_eq!(read(text.as_bytes()), *want, "{text:?}");
    }
}

#[test]
fn what_is_refused_and_where() {
    let table: &[(&[u8], &str)] = &[
        (b"\nfoo", "f:2: `foo` is no UCI command: config, option, list, package, or # for a comment"),
        (
            b"\xef\xbb\xbfconfig t",
            "f:1: `\\xef\\xbb\\xbfconfig` is no UCI command: config, option, list, package, or # for a comment",
        ),
        (
            b"config t\nconfig\n",
            "f:2: @t[0]: `config\\n` is no UCI command: config, option, list, package, or # for a comment",
        ),
        (b"config t\nconfig", "f:2: @t[0]: the file ends in the middle of a command"),
        (b"config \n", "f:1: config wants a type: config sliver 'web'"),
        (b"config 'a b'", "f:1: a section's type is of printable characters"),
        (
            b"config t exp-1",
            "f:1: `exp-1` is no section name: UCI allows A-Z a-z 0-9 and _; other names go to `option name`",
        ),
        (b"package a.b", "f:1: `a.b` is no package name: UCI allows A-Z a-z 0-9 and _"),
        (b"package ''", "f:1: the package's name is missing"),
        (b"config t n m", "f:1: `m` is one word too many: a value with spaces wants quotes"),
        (b"option a b", "f:1: an option before the first config line"),
        (
            b"config t n\n\noption a b c",
            "f:3: t 'n': `c` is one word too many: a value with spaces wants quotes",
        ),
        (b"config t n\noption '' b", "f:2: t 'n': the option's name is missing"),
        (
            b"config t\nconfig t\nlist a.b c",
            "f:3: @t[1]: `a.b` is no option name: UCI allows A-Z a-z 0-9 and _",
        ),
        (b"config t\noption a 'b\nc\n\n", "f:2: @t[0]: the ' opened here is never closed"),
        (b"config t\noption a 'b\nc' \"\nd", "f:3: @t[0]: the \" opened here is never closed"),
        (
            b"config t n\n\nconfig u n",
            "f:3: the section's name is taken by t 'n' of line 1: give each its own name",
        ),
        (b"config t\n\0", "f:2: a NUL byte: the file is damaged, write it again"),
    ];
    for (text, want) in table {
        assert_eq!(read(text), *want, "{}", text.escape_ascii());
    }
    let long = format!("config t {}-", "n".repeat(100));
    assert!(read(long.as_bytes()).contains("`nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn…`"));
}

#[test]
fn bytes_that_are_no_text_stay() {
    assert_eq!(read(b"config t\noption a '\xff\xc3'\n# \xff"), "t: a=\\xff\\xc3");
    assert!(parse(b"config t\noption \xff b", "f").is_err());
}

#[test]
fn lines_are_those_of_the_last_value() {
    let text = b"\nconfig t\noption a '\n\n'\noption b 1\nlist b 2\noption a '\n\n'";
    let package = parse(text, "f").unwrap();
    let section = &package.sections[0];
    let lines: Vec<_> = section.options.iter().map(|o| (o.name.as_str(), o.line)).collect();
    assert_eq!((section.line, lines), (2, vec![("a", 3), ("b", 7)]));
    assert_eq!(section.option("b").map(|o| o.line), Some(7));
    assert_eq!(section.option("c"), None);
}
