//! The command: arguments, logger, run, exit code.
fn main() {
    println!("sliverfs {}", env!("CARGO_PKG_VERSION"));
}
