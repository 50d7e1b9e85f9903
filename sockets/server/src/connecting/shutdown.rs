//! shutdown(2) of a socket that is connecting.
//!
//! The attempt ends, as in Linux, unless the descriptor has taken data of the application. It does so for a
//! moment while the library fills it, where a kernel socket says EAGAIN. A program that could write takes its
//! socket for connected and its data for sent, so the data and its end follow once the connection stands.

use rustix::io::retry_on_intr;
use rustix::net::RecvFlags;

use super::Connecting;

impl Connecting {
    /// Handles shutdown(2). Returns false if the attempt goes on, as far as known: the library has not said
    /// yet what it fills the descriptor with.
    pub(crate) fn shut_down(&mut self) -> bool {
        let is_filling = self.fills && self.filled.is_none();
        if is_filling && self.pending() > 0 {
            self.is_shut_unfilled = true;
            return false;
        }
        if self.has_taken_data() {
            return false;
        }
        self.abort();
        true
    }

    /// Returns the number of bytes in the descriptor, or 0 if it is not here.
    fn pending(&self) -> usize {
        self.data
            .as_ref()
            .and_then(|data| rustix::io::ioctl_fionread(data).ok())
            .map_or(0, |there| there as usize)
    }

    /// Returns true if there is something in the descriptor that is not the library's filling.
    fn has_taken_data(&self) -> bool {
        let mut seen = vec![0; self.pending()];
        let Some(data) = self.data.as_ref().filter(|_| !seen.is_empty()) else { return false };
        // Without a filling the connection stands, and the application knows.
        let Some((_, filling)) = &self.filled else { return true };
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        match retry_on_intr(|| rustix::net::recv(data, &mut seen[..], flags)) {
            // An urgent byte, which only the application sends, would hide the rest.
            Ok((length, _)) => length < seen.len() || !filling.without(&seen).is_empty(),
            Err(_) => false,
        }
    }
}
