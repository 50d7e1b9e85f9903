//! The C library's header, made from the library's source code by cbindgen.

use std::fs;
use std::path::PathBuf;

use crate::{Result, root};

/// Makes the header and writes it to its place.
/// Fails if the source code cannot be read, or the header cannot be written.
pub(crate) fn write() -> Result<()> {
    fs::write(path(), make()?)?;
    println!("{}", path().display());
    Ok(())
}

/// Returns true if the header matches the source code.
/// Fails if the source code or the header cannot be read.
pub(crate) fn is_current() -> Result<bool> {
    Ok(fs::read(path())? == make()?)
}

/// Returns the path of the header.
pub(crate) fn path() -> PathBuf {
    root().join("ffi/lib/include/peersock.h")
}

fn make() -> Result<Vec<u8>> {
    let folder = root().join("ffi/lib");
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml"))?;
    // Pass each file by itself, because no other crate matters and cargo is not needed.
    let mut builder = cbindgen::Builder::new().with_config(config);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.join("src"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort_by_key(|file| (order(file), file.clone()));
    for file in files.into_iter().filter(|file| !file.ends_with("lib.rs")) {
        builder = builder.with_src(file);
    }
    let mut header = Vec::new();
    builder.generate().map_err(|error| format!("cbindgen: {error}"))?.write(&mut header);
    // Rust documentation says "Safety", and the C documentation says "Pointers".
    Ok(String::from_utf8(header)?.replace("// # Safety\n", "// Pointers:\n").into_bytes())
}

/// Returns the place of a file in the header. Files that readers want to see first come first.
fn order(file: &std::path::Path) -> usize {
    const FIRST: [&str; 6] = ["result.rs", "registry.rs", "config.rs", "node.rs", "networks.rs", "bsd.rs"];
    let name = file.file_name().unwrap_or_default();
    FIRST.iter().position(|first| name == *first).unwrap_or(FIRST.len())
}
