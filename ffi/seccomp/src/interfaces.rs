//! Requests of programs about interfaces, by routing sockets (rtnetlink(7)) and by ioctl(2): the answers
//! include the networks.

use libc::{c_int, ifconf, iovec, msghdr, ssize_t};
use peersock_bsd::{Errno, Result, interface_requests, kernel, netlink};

use crate::Context;
use crate::address::Answer;
use crate::call::{Call, Local, Step};
use crate::message::{MAX_CALL_BYTES, Message, Received, empty};

/// Lengths of a `struct ifreq` and of an `ifconf`, bytes.
const IFREQ: usize = size_of::<libc::ifreq>();
const IFCONF: usize = size_of::<ifconf>();

impl Call {
    /// Notes the thread's request on a routing socket, before the kernel sends it.
    pub(crate) fn note_question(
        &self,
        context: &Context,
        local: &Local,
        sent: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Step> {
        // The kernel reports unreadable data.
        if netlink::is_routing_socket(local.raw())
            && let Ok(sent) = sent()
        {
            netlink::note(local.raw(), &context.answers, &sent, || context.rules.client.interfaces());
        }
        Ok(Step::GoOn)
    }

    /// Handles recvfrom(2) of a kernel socket.
    pub(crate) fn receive_answer_from(&self, context: &Context, local: &Local) -> Result<Step> {
        let target = &self.target;
        if !netlink::is_routing_socket(local.raw()) || target.word(4) == 0 {
            return Ok(Step::GoOn);
        }
        let size = usize::try_from(target.word(2)).map_err(|_| Errno::INVAL)?.min(MAX_CALL_BYTES);
        let mut answer = Answer::read(target, target.word(4), target.word(5))?;
        let to = answer.pointers();
        let mut data = vec![0_u8; size];
        let mut piece = iovec { iov_base: data.as_mut_ptr().cast(), iov_len: size };
        let mut header = empty();
        (header.msg_iov, header.msg_iovlen) = (&raw mut piece, 1);
        // SAFETY: both are the answer's own.
        (header.msg_name, header.msg_namelen) = (to.address.cast(), unsafe { *to.length });
        // SAFETY: all that the header points to is live, and has as much room as given.
        let received =
            unsafe { netlink::receive(local.raw(), &context.answers, &raw mut header, target.int(3)) };
        let Some(received) = taken(received)? else { return Ok(Step::GoOn) };
        target.write(target.word(1), &data[..(received as usize).min(size)])?;
        // SAFETY: as above.
        unsafe { *to.length = header.msg_namelen };
        answer.write(target)?;
        Ok(Step::Value(received as i64))
    }

    /// Handles recvmsg(2) of a kernel socket.
    pub(crate) fn receive_answer(
        &self,
        context: &Context,
        local: &Local,
        message: &Message,
        flags: c_int,
    ) -> Result<Option<i64>> {
        if !netlink::is_routing_socket(local.raw()) {
            return Ok(None);
        }
        // SAFETY: all that the header points to is live, and has as much room as given.
        self.take(message, |header| unsafe { netlink::receive(local.raw(), &context.answers, header, flags) })
    }

    /// Receives a message into memory of this process and copies it to the thread. Returns `None` if
    /// `receive` takes nothing.
    fn take(
        &self,
        message: &Message,
        receive: impl FnOnce(&mut msghdr) -> Option<Result<ssize_t>>,
    ) -> Result<Option<i64>> {
        let mut data = vec![0; message.size().min(MAX_CALL_BYTES)];
        let mut into = Received::for_message(message, &mut data);
        let Some(received) = taken(receive(&mut into.header))? else { return Ok(None) };
        message.write(&self.target, &data[..(received as usize).min(data.len())], &into)?;
        Ok(Some(received as i64))
    }

    /// Handles recvmmsg(2) of a kernel socket. On a routing socket it receives one message at a time, because
    /// the next kernel message would be behind the end of an answer.
    pub(crate) fn receive_first_answer(
        &self,
        context: &Context,
        local: &Local,
        flags: c_int,
    ) -> Result<Step> {
        if !netlink::is_routing_socket(local.raw()) {
            return Ok(Step::GoOn);
        }
        let (message, flags) =
            (Message::read(&self.target, self.target.word(1))?, flags & !libc::MSG_WAITFORONE);
        let mut received = self.receive_answer(context, local, &message, flags)?;
        if received.is_none() {
            let flags = flags | libc::MSG_DONTWAIT;
            received = self.take(&message, |header| {
                // SAFETY: all that the header points to is live, and has as much room as given.
                Some(unsafe { kernel::recvmsg(local.raw(), header, flags) })
            })?;
        }
        // The kernel waits itself.
        let Some(received) = received else { return Ok(Step::GoOn) };
        message.write_length(&self.target, received)?;
        Ok(Step::Value(1))
    }

    /// Handles ioctl(2) requests about interfaces.
    pub(crate) fn interface_request(&self, context: &Context) -> Result<Step> {
        let at = self.target.word(2);
        let local = self.local()?;
        // For drivers of other files the number may have another meaning.
        if kernel::int_option(local.raw(), libc::SOL_SOCKET, libc::SO_TYPE).is_none() {
            return Ok(Step::GoOn);
        }
        if self.request() == libc::SIOCGIFCONF {
            return self.list_interfaces(context, &local);
        }
        let mut asked = [0_u8; IFREQ];
        self.target.read(at, &mut asked)?;
        // SAFETY: such a request concerns this many bytes.
        let done = unsafe { self.ask_interfaces(context, &local, asked.as_mut_ptr().cast()) }?;
        self.target.write(at, &asked)?;
        Ok(Step::Value(done.into()))
    }

    /// Handles SIOCGIFCONF.
    fn list_interfaces(&self, context: &Context, local: &Local) -> Result<Step> {
        let at = self.target.word(2);
        let mut asked = [0_u8; IFCONF];
        self.target.read(at, &mut asked)?;
        let (length, rest) = asked.split_first_chunk::<4>().ok_or(Errno::INVAL)?;
        let to = u64::from_ne_bytes(*rest.last_chunk().ok_or(Errno::INVAL)?);
        let length = usize::try_from(i32::from_ne_bytes(*length)).map_err(|_| Errno::INVAL)?;
        let mut room = vec![0_u8; length.min(MAX_CALL_BYTES)];
        // SAFETY: zeros are a null pointer and no length.
        let mut list: ifconf = unsafe { std::mem::zeroed() };
        list.ifc_len = room.len() as c_int;
        if to != 0 {
            list.ifc_ifcu.ifcu_buf = room.as_mut_ptr().cast();
        }
        // SAFETY: the list has as much room as it says.
        let done = unsafe { self.ask_interfaces(context, local, (&raw mut list).cast()) }?;
        if to != 0 {
            self.target.write(to, &room[..usize::try_from(list.ifc_len).unwrap_or(0).min(room.len())])?;
        }
        self.target.write(at, &list.ifc_len.to_ne_bytes())?;
        Ok(Step::Value(done.into()))
    }

    /// # Safety
    /// The argument is valid for the thread's request.
    unsafe fn ask_interfaces(
        &self,
        context: &Context,
        local: &Local,
        argument: *mut libc::c_void,
    ) -> Result<c_int> {
        let networks = || context.rules.client.interfaces();
        // SAFETY: the caller's.
        unsafe { interface_requests::ioctl(local.raw(), self.request(), argument, networks) }
    }
}

/// Returns the data that a non-blocking call has received, or `None` if there is none. The kernel reports
/// errors once, so they are passed to the thread.
fn taken(received: Option<Result<ssize_t>>) -> Result<Option<ssize_t>> {
    received.filter(|received| *received != Err(Errno::AGAIN)).transpose()
}
