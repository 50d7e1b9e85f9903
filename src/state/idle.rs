//! End of a shared node that no program uses.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::management::{connect_own, with_short_path};

/// Time for such a node to answer, and then to leave its state directory.
pub(super) const WITHIN: Duration = Duration::from_secs(2);

/// First message to a shared node that asks it to end: `Ask::Yield` of `peersock-attach`, with its length.
const YIELD: &[u8] = b"\x07\0\0\0\"Yield\"";

/// Answer of a node that ends, with its length: `Reply::Ending`.
const ENDING: &[u8] = b"\x08\0\0\0\"Ending\"";

/// Limit of an answer in bytes.
const MAX_ANSWER: u64 = 4096;

/// Asks the shared node at a socket to end if it is in the background and no program uses it. Returns true if
/// it ends.
pub(super) fn is_leaving(socket: &Path) -> bool {
    with_short_path(socket, ask).is_ok_and(|answer| answer.is_empty() || answer == ENDING)
}

fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = connect_own(socket)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(YIELD)?;
    // The node ends the connection when it has left the directory, which may take longer than this waits.
    let mut answer = Vec::new();
    let ended = stream.take(MAX_ANSWER).read_to_end(&mut answer);
    match answer.is_empty() {
        true => ended.map(|_| answer),
        false => Ok(answer),
    }
}
