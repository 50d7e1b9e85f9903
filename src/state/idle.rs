//! End of a shared node that no program uses.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::management::{connect_own, with_short_path};

/// Time for such a node to answer, and then to leave its state directory.
pub(super) const WITHIN: Duration = Duration::from_secs(2);

/// First message to a shared node that asks it to end: `Ask::Yield` of `peersock-attach`.
const YIELD: &str = "Yield";

/// Answer of a node that ends: `Reply::Ending`.
const ENDING: &str = "Ending";

/// Limit of an answer in bytes.
const MAX_ANSWER: u64 = 4096;

/// Asks the shared node at a socket to end if it is in the background and no program uses it. Returns true if
/// it ends.
pub(super) fn is_leaving(socket: &Path) -> bool {
    with_short_path(socket, ask).is_ok_and(|answer| answer.is_empty() || answer == message(ENDING))
}

fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = connect_own(socket)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(&message(YIELD))?;
    // The node ends the connection when it has left the directory, which may take longer than this waits.
    let mut answer = Vec::new();
    let ended = stream.take(MAX_ANSWER).read_to_end(&mut answer);
    match answer.is_empty() {
        true => ended.map(|_| answer),
        false => Ok(answer),
    }
}

/// Returns a message without fields in the form of `peersock-attach`: a length of four bytes and JSON.
fn message(name: &str) -> Vec<u8> {
    let text = format!("\"{name}\"");
    [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}
