//! What a section says, and what is wrong with it.

use super::*;
use std::path::Path;

fn parse(text: &str) -> Config {
    Config::parse(text.as_bytes(), "f").unwrap()
}

/// Each problem as `LINE SECTION[!]: WHAT`.
fn problems(text: &[u8]) -> Vec<String> {
    let of = |problem: Problem| {
        let mark = if problem.fatal_for_section { "!" } else { "" };
        format!("{} {}{mark}: {}", problem.line, problem.section, problem.what)
    };
    Config::parse(text, "f").unwrap().problems.into_iter().map(of).collect()
}

#[test]
fn all_options() {
    let config = parse(
        "config sliver 'web'
            option base 'debian'
        config sliver
            option name 'exp-1'
            option base 'debian-12.5'
            option backend 'copy'
            option size '512M'
            option data '/mnt/usb/my data.tgz'
            option mount 'No'
            option enabled '0'
        config base 'debian'
        config base 'd12'
            option name 'debian-12.5'
            option source '/mnt/usb/d12.squashfs'
        config sliverfs 'main'
            option lxcpath '/mnt/usb/lxc'
            option backend 'overlay'
            option convert 'auto'
        ",
    );
    assert_eq!(config.problems, []);
    assert!(config.check_main().is_ok());
    assert_eq!(config.main.lxcpath.as_deref(), Some(Path::new("/mnt/usb/lxc")));
    assert_eq!(config.main.backend, "overlay");
    assert!(config.main.convert && !parse("").main.convert);
    let wrong = problems(b"config sliverfs main\n option convert 'yes'");
    assert_eq!(wrong, ["2 sliverfs 'main'!: convert `yes` is neither auto nor no"]);
    let name = |name| Name::parse(name).unwrap();
    let place = |line, section: &str| Place { line, section: section.to_owned() };
    assert_eq!(
        config.slivers,
        [
            SliverWanted {
                name: name("web"),
                base: name("debian"),
                backend: "overlay".to_owned(),
                size: None,
                quota: None,
                data: None,
                mount: true,
                enabled: true,
                place: place(1, "sliver 'web'"),
            },
            SliverWanted {
                name: name("exp-1"),
                base: name("debian-12.5"),
                backend: "copy".to_owned(),
                size: Some(512 << 20),
                quota: None,
                data: Some(PathBuf::from("/mnt/usb/my data.tgz")),
                mount: false,
                enabled: false,
                place: place(3, "@sliver[1]"),
            },
        ]
    );
    assert_eq!(
        config.bases,
        [
            BaseWanted { name: name("debian"), source: None, place: place(11, "base 'debian'") },
            BaseWanted {
                name: name("debian-12.5"),
                source: Some(PathBuf::from("/mnt/usb/d12.squashfs")),
                place: place(12, "base 'd12'"),
            },
        ]
    );
}

#[test]
fn without_a_main_section_auto_is_wanted() {
    let config = parse("config sliver a\noption base b");
    assert_eq!((config.main, config.slivers[0].backend.as_str()), (Main::default(), AUTO));
}

#[test]
fn one_wrong_section_leaves_the_others() {
    let text = b"config base 'b'
config sliver 'no_base'
config sliver
\toption base b
config sliver 'wrong'
\toption base b
\toption mount maybe
\toption data data.tgz
config sliver '_a'
\toption base b
config sliver 'twice'
\tlist base b
config sliver 'latin'
\toption base b
\toption data '/\xff'
config base 'url'
\toption source http://example.org/b.tgz
config sliver 'typo'
\toption base b
\toption mout 0
config sliver 'good'
\toption base b
config sliver 'again'
\toption name good
\toption base c
config slivers 'x'
";
    let config = Config::parse(text, "f").unwrap();
    let names: Vec<_> = config.slivers.iter().map(|sliver| sliver.name.as_str()).collect();
    assert_eq!((config.bases.len(), names), (1, vec!["typo", "good"]));
    assert!(config.check_main().is_ok());
    assert_eq!(
        problems(text),
        [
            "2 sliver 'no_base'!: a sliver wants a base: option base 'NAME'",
            "3 @sliver[1]!: the section has no name: add option name 'NAME'",
            "8 sliver 'wrong'!: data `data.tgz` is no path on this node: one starts with /",
            "7 sliver 'wrong'!: mount `maybe` is neither 1, true, on, yes, enabled nor 0, false, off, no, disabled",
            "9 sliver '_a'!: `_a` is not a name; a name is 1 to 63 of A-Z a-z 0-9 . _ -, and starts with a letter or a digit",
            "12 sliver 'twice'!: base is a list: write one `option base` in its place",
            "15 sliver 'latin'!: data is not UTF-8: write it again",
            "17 base 'url'!: source `http://example.org/b.tgz` is no path on this node: one starts with /",
            "20 sliver 'typo': option mout is not known here; known are name, base, backend, size, quota, data, mount, enabled",
            "23 sliver 'again'!: good is asked for in line 21 (sliver 'good'), which counts",
            "26 slivers 'x': an unknown type of section; known are sliverfs, base, sliver",
        ]
    );
    assert_eq!(
        config.problem(&config.slivers[1].place, "no space").to_string(),
        "f:21: sliver 'good': no space"
    );
}

#[test]
fn a_wrong_main_section_is_no_default() {
    for (text, want) in [
        ("config sliverfs main\noption lxcpath lxc", "f:2: sliverfs 'main': lxcpath `lxc` is no path on"),
        ("config sliverfs main\nlist backend copy", "f:2: sliverfs 'main': backend is a list"),
        ("\nconfig sliverfs\noption lxcpath /x", "f:2: @sliverfs[0]: the section that is read is"),
    ] {
        let config = parse(text);
        let said = config.check_main().unwrap_err().to_string();
        assert!(said.starts_with(want), "{said}");
        assert_eq!(config.main, Main::default());
    }
    assert!(parse("config sliverfs main\noption lxc_path /x").check_main().is_ok());
}

#[test]
fn words_for_yes_and_no() {
    for (word, want) in [
        ("1", Some(true)),
        ("ON", Some(true)),
        ("true", Some(true)),
        ("yes", Some(true)),
        ("enabled", Some(true)),
        ("0", Some(false)),
        ("off", Some(false)),
        ("False", Some(false)),
        ("no", Some(false)),
        ("disabled", Some(false)),
        ("2", None),
        ("y", None),
        (" 1", None),
    ] {
        let config = parse(&format!("config sliver a\noption base b\noption mount '{word}'"));
        assert_eq!(config.slivers.first().map(|sliver| sliver.mount), want, "{word}");
    }
}
