//! The memory that a process takes.

use super::file;
use crate::sum::Sum;

/// Bytes of memory and swap that process `pid` has for itself: its share of each page (Linux 4.14, CONFIG_PROC_PAGE_MONITOR), or
/// else all pages that it sees. None where it ended, or is not ours to look at.
pub fn of(pid: u32) -> Option<u64> {
    let sum = |file: &str, fields: &[&str]| {
        let text = file::text(format!("/proc/{pid}/{file}")).ok()?;
        sum(&text, fields)
    };
    sum("smaps_rollup", &["Pss", "SwapPss"]).or_else(|| sum("status", &["VmRSS", "VmSwap"]))
}

/// The sum, in bytes, of fields like `VmRSS:      1016 kB`. None where the first one is missing: a kernel thread, or a process
/// that ended and was not waited for.
fn sum(text: &str, fields: &[&str]) -> Option<u64> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.product(1024)
    };
    let (first, rest) = fields.split_first()?;
    let rest = rest.iter().filter_map(|name| value(name)).fold(0, u64::saturating_add);
    Some(value(first)?.plus(rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_of_proc() {
        let status = "Name:\tx\nVmRSS:\t    1016 kB\nRssAnon:\t 1 kB\nVmSwap:\t       4 kB\n";
        assert_eq!(sum(status, &["VmRSS", "VmSwap"]), Some(1020 << 10));
        // Before 2.6.34 there is no VmSwap, and of a zombie nothing.
        assert_eq!(sum("VmRSS:\t 8 kB\n", &["VmRSS", "VmSwap"]), Some(8 << 10));
        assert_eq!(sum("State:\tZ (zombie)\n", &["VmRSS", "VmSwap"]), None);
        assert_eq!(sum("Pss:  7 kB\nPss_Anon: 1 kB\nSwapPss: 1 kB\n", &["Pss", "SwapPss"]), Some(8 << 10));
        assert!(of(std::process::id()).unwrap() > 64 << 10);
        assert_eq!(of(0), None);
    }
}
