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
        if is_filling && self.has_pending() {
            self.is_shut_unfilled = true;
            return false;
        }
        if self.has_taken_data() {
            return false;
        }
        self.abort();
        true
    }

    /// Returns true if the descriptor is here and not empty.
    fn has_pending(&self) -> bool {
        self.data.as_ref().is_some_and(|data| rustix::io::ioctl_fionread(data).is_ok_and(|there| there > 0))
    }

    /// Returns true if there is something in the descriptor that is not the library's filling.
    fn has_taken_data(&self) -> bool {
        let Some(data) = self.data.as_ref().filter(|_| self.has_pending()) else { return false };
        // Without a filling the connection stands, and the application knows.
        let Some((_, filling)) = &self.filled else { return true };
        let mut seen = vec![0; rustix::io::ioctl_fionread(data).map_or(0, |there| there as usize)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        match retry_on_intr(|| rustix::net::recv(data, &mut seen[..], flags)) {
            // An urgent byte, which only the application sends, would hide the rest.
            Ok((length, _)) => length < seen.len() || !filling.without(&seen).is_empty(),
            Err(_) => false,
        }
    }
}
