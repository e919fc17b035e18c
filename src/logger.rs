//! Messages: to standard error, and to syslog where standard error is lost or nobody reads it.

use std::fmt;
use std::os::unix::net::UnixDatagram;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::sys::file::say;

/// Standard error for a person, and the system's log.
struct Tee {
    terminal: SimpleLogger,
    syslog: Option<UnixDatagram>,
}

/// Sets the program's log up. With `syslog` every message goes to /dev/log too, in the same words.
pub fn start(verbose: bool, syslog: bool) {
    let level = if verbose { LevelFilter::Debug } else { LevelFilter::Info };
    let terminal = SimpleLogger::new().with_level(level);
    let syslog = if syslog { connect() } else { None };
    if log::set_boxed_logger(Box::new(Tee { terminal, syslog })).is_ok() {
        log::set_max_level(level);
    }
}

/// Says something to the log. The macros of `log` put the test of the level, and the caller's module, at each place.
#[cold]
#[inline(never)]
pub fn tell(level: Level, what: fmt::Arguments<'_>) {
    log::log!(level, "{what}");
}

/// Says that something is wrong, and the command goes on.
#[macro_export]
macro_rules! warn {
    ($($what:tt)*) => { $crate::logger::tell(log::Level::Warn, format_args!($($what)*)) };
}

/// Says what was done.
#[macro_export]
macro_rules! info {
    ($($what:tt)*) => { $crate::logger::tell(log::Level::Info, format_args!($($what)*)) };
}

/// Says what only `--verbose` asks for.
#[macro_export]
macro_rules! debug {
    ($($what:tt)*) => { $crate::logger::tell(log::Level::Debug, format_args!($($what)*)) };
}

/// The system's log, where one listens.
fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect("/dev/log").ok()?;
    // A log daemon that hangs must not hang the boot.
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

impl Log for Tee {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.terminal.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // SimpleLogger's line, but not written by it: it panics where standard error is a full disk or a pipe whose reader
        // went away, in the midst of a command. Which module spoke is nothing to the operator.
        let line = format!("{:<5} [sliverfs] {}\n", record.level(), record.args());
        let _nobody_reads_it = say(2, line.as_bytes());
        if let Some(syslog) = &self.syslog {
            // RFC 3164: facility daemon (3) times 8, and the severity.
            let severity = match record.level() {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            let line = format!("<{}>sliverfs[{}]: {}", 24 + severity, std::process::id(), record.args());
            // A full log loses a line; the command goes on.
            let _lost = syslog.send(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
