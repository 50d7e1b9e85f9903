//! Messages on a stream: a length (four bytes, little endian) and a JSON document.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Limit of a message in bytes: a static network of 10,000 members takes 2 MB.
const MAX_MESSAGE: usize = 16 << 20;

/// Bytes read at once, so that a length alone makes no process reserve memory.
const PIECE: usize = 64 << 10;

/// Writes one message.
pub(crate) fn write(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, message)?;
    let Length(length) = length;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message is longer than 16 MiB"));
    }
    // At its full size, because growing would leave an unwiped copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 + length));
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    serde_json::to_writer(&mut *bytes, message)?;
    stream.write_all(&bytes)
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads one message; `None` at the end of the stream.
///
/// # Errors
/// `UnexpectedEof` within a message, `InvalidData` for one that is too long or unknown.
pub(crate) fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    // The end between messages is regular.
    loop {
        match stream.read(&mut length[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.read_exact(&mut length[1..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than 16 MiB"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    while bytes.len() < length {
        let begin = bytes.len();
        let mut longer = Zeroizing::new(Vec::with_capacity((begin + PIECE).min(length)));
        // A new buffer, because growing in place would leave an unwiped copy behind.
        longer.extend_from_slice(&bytes);
        longer.resize((begin * 2).max(begin + PIECE).min(length), 0);
        stream.read_exact(&mut longer[begin..])?;
        bytes = longer;
    }
    let message = serde_json::from_slice(&bytes);
    // The parser's text may quote a secret.
    message.map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "an unknown message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Ask, Reply};

    #[test]
    fn messages_are_read_as_written_and_the_end_is_told_from_a_cut() {
        let mut bytes = Vec::new();
        let text = "x".repeat(200_000);
        write(&mut bytes, &Reply::Note(text.clone())).expect("memory");
        write(&mut bytes, &Reply::Contacts(7)).expect("memory");
        let mut stream = &bytes[..];
        assert!(matches!(read(&mut stream), Ok(Some(Reply::Note(read))) if read == text));
        assert!(matches!(read(&mut stream), Ok(Some(Reply::Contacts(7)))));
        assert!(matches!(read::<Reply>(&mut stream), Ok(None)));
        for cut in [1, 3, 4, 5, 100, 199_999] {
            let error = read::<Reply>(&mut &bytes[..cut]).expect_err("it was cut");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
    }

    #[test]
    fn what_is_too_long_or_unknown_is_refused_without_memory_for_it() {
        for bytes in [&u32::MAX.to_le_bytes()[..], b"\x02\0\0\0{}", b"\x04\0\0\0oops", b"\0\0\0\0"] {
            let error = read::<Ask>(&mut &bytes[..]).expect_err("it is no message");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        let announced = [&(16_u32 << 20).to_le_bytes()[..], b"{"].concat();
        let error = read::<Ask>(&mut &announced[..]).expect_err("it was cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
