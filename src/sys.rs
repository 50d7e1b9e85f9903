//! The few places where the operating system needs `unsafe`.
#![allow(unsafe_code)]

/// Calls `handler` when the process exits normally (exit(3), or returning from `main`).
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: atexit(3) only stores the pointer; `handler` is a function of this program and lives as long as it does
    // (a library that holds it must not be unloaded, which Rust libraries never are by themselves).
    let failed = unsafe { libc::atexit(handler) } != 0;
    if failed {
        tracing::debug!("no exit handler: call Node::shutdown before the program ends");
    }
}
