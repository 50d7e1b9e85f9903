//! Standard input and output as plain descriptors: no line buffering, and reads that can be cancelled.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};

use crate::failure::Outcome;
use crate::output::check_open;
pub(crate) use crate::output::{note, print};

/// Requested size of a pipe's buffer: reads and writes are fewer and larger than with the default of 64 KiB.
const PIPE_BYTES: usize = 1 << 20;

/// Standard input.
pub(crate) struct Stdin {
    file: File,
    terminal: bool,
}

impl Stdin {
    pub(crate) fn open() -> io::Result<Stdin> {
        let stdin = io::stdin();
        let file = File::from(stdin.as_fd().try_clone_to_owned()?);
        widen_pipe(&file);
        Ok(Stdin { file, terminal: stdin.is_terminal() })
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Reads at least one byte of input. Returns 0 at its end, and `None` once `token` is cancelled.
    pub(crate) fn read(&self, buffer: &mut [u8], token: &Token) -> io::Result<Option<usize>> {
        loop {
            let mut fds = [PollFd::new(&self.file, PollFlags::IN), PollFd::new(&token.0, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(None),
                Ok(_) => {}
            }
            match (&self.file).read(buffer) {
                // Another program that shares the terminal may have made it non-blocking.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                other => return other.map(Some),
            }
        }
    }
}

/// Second event that a cancellable read waits for.
pub(crate) struct Token(UnixStream);

/// Cancels the reads with its [`Token`], explicitly or on drop.
pub(crate) struct Canceller(UnixStream);

impl Canceller {
    pub(crate) fn new() -> io::Result<(Canceller, Token)> {
        let (canceller, token) = UnixStream::pair()?;
        Ok((Canceller(canceller), Token(token)))
    }

    pub(crate) fn cancel(&self) {
        // The token sees the end of the stream. A failure means that it already has.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Returns standard output, unbuffered. Fails if it is closed, because received data would be lost although
/// the peer is told that it has arrived.
pub(crate) fn stdout() -> Outcome<File> {
    check_open()?;
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    widen_pipe(&file);
    Ok(file)
}

/// Writes all bytes. Waits for room if another program that shares the file has made it non-blocking.
pub(crate) fn write_all(mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(file)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Also returns on an error of the file, because the next write reports it.
fn wait_for_room(file: &File) -> io::Result<()> {
    match rustix::event::poll(&mut [PollFd::new(file, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn widen_pipe(file: &File) {
    // Fails if the file is not a pipe, or beyond the user's limit of pipe memory; then the size stays.
    let _ = rustix::pipe::fcntl_setpipe_size(file, PIPE_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_and_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        let mut filled = 0;
        while let Ok(count) = (&writer).write(&[1; 4096]) {
            filled += count;
        }
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let written = write_all(&writer, &[2; 1 << 20]);
                drop(writer);
                written
            });
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            writing.join().unwrap().unwrap();
            assert_eq!(content.len(), filled + (1 << 20));
        });
    }

    #[test]
    fn who_waits_for_room_learns_that_the_reader_has_gone() {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| write_all(&writer, &[2; 1 << 20]));
            drop(reader);
            assert_eq!(writing.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        });
    }

    #[test]
    fn a_waiting_read_ends_when_cancelled() {
        let (reader, _writer) = io::pipe().unwrap();
        let stdin = Stdin { file: File::from(std::os::fd::OwnedFd::from(reader)), terminal: false };
        let (canceller, token) = Canceller::new().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stdin.read(&mut [0; 16], &token).unwrap());
            canceller.cancel();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }

    #[test]
    fn data_and_the_end_are_read_before_any_cancellation() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stdin = Stdin { file: File::from(std::os::fd::OwnedFd::from(reader)), terminal: false };
        let (_canceller, token) = Canceller::new().unwrap();
        writer.write_all(b"abc").unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        assert_eq!(stdin.read(&mut buffer, &token).unwrap(), Some(3));
        assert_eq!(stdin.read(&mut buffer, &token).unwrap(), Some(0));
    }
}
