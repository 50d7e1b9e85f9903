//! Link options of the shared library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Programs record this name; it changes with incompatible versions.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libpeersock.so.0");
    // The node's threads and the exit handler cannot be unloaded.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
