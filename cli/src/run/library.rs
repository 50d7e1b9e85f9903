//! Where the library is that takes the place of socket calls.

use std::env;
use std::path::PathBuf;

use crate::failure::{Failure, Outcome};

/// Names another place.
const VARIABLE: &str = "PEERSOCK_PRELOAD";

const FILE: &str = "libpeersock_preload.so";

/// Its path: what the variable says, or beside this program, or in the `lib` beside this program's `bin`.
pub(super) fn find() -> Outcome<PathBuf> {
    if let Some(path) = env::var_os(VARIABLE).map(PathBuf::from) {
        return match path.is_file() {
            true => Ok(std::path::absolute(path)?),
            false => Err(Failure::new(format_args!("{VARIABLE} names {}, which is no file", path.display()))),
        };
    }
    let own = env::current_exe()?;
    let folder = own.parent().unwrap_or(&own);
    let places =
        [folder.join(FILE), folder.join("../lib/peersock").join(FILE), folder.join("../lib").join(FILE)];
    let found = places.iter().find(|place| place.is_file());
    found.cloned().ok_or_else(|| {
        Failure::new(format_args!(
            "{FILE} is missing beside {}; build it (cargo build -p peersock-preload), or name it in {VARIABLE}",
            own.display()
        ))
    })
}
