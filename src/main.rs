//! Which program this is, decided before anything else is built: the container's init must reach
//! its work in microseconds, and must not run a line of the command line's code.

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let code = match arguments.next() {
        Some(word) if word == "init" => mydocker::runtime::init::main(),
        _ => {
            mydocker::sys::fd::ensure_standard_streams();
            // A write beyond the caller's file size limit (ulimit -f) is an error of that write: a log
            // of events that has grown past it is no reason to die.
            mydocker::sys::process::ignore_signal(libc::SIGXFSZ);
            mydocker::cli::main()
        }
    };
    #[allow(clippy::exit, reason = "the one place")]
    std::process::exit(code);
}
