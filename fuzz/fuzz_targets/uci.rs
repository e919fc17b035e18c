//! UCI text, and the node's configuration of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sliverfs::config::{Config, lxcconf, uci};

fuzz_target!(|bytes: &[u8]| {
    if let Err(err) = uci::parse(bytes, "sliverfs") {
        assert!(err.line > 0 && !err.to_string().is_empty());
    }
    if let Err(err) = Config::parse(bytes, "sliverfs") {
        assert!(!err.to_string().is_empty());
    }
    let _none = lxcconf::lxcpath(bytes);
});
