//! Sending and receiving beyond read(2) and write(2): with addresses, ancillary data or flags that AF_UNIX
//! sockets do not support.

use libc::{c_int, c_void, timespec};
use peersock_bsd::{self as bsd, Errno, Result, Socket, TimeLimit, netlink};
use peersock_fd::Kind;
use rustix::event::epoll::EventFlags;
use rustix::net::sockopt::Timeout;

use crate::Context;
use crate::address::{Address, Answer};
use crate::call::{Call, Local, Step, Wait};
use crate::message::{MANY_STRIDE, MAX_CALL_BYTES, Message, Received, empty, piece};

/// Maximum number of messages of one call that are moved at once: the caller asks again for the others.
const MAX_MESSAGES_AT_ONCE: u32 = 64;

/// Flags of the supervisor's calls: only the calling thread waits, and only it gets SIGPIPE.
const OURS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

impl Call {
    pub(crate) fn sendto(&self, context: &Context) -> Result<Step> {
        let target = &self.target;
        let (size, flags) = (usize::try_from(target.word(2)).map_err(|_| Errno::INVAL)?, target.int(3));
        let local = self.local()?;
        let address = Address::read(target, target.word(4), target.int(5))?;
        let Some(socket) = self.by_address(context, &local, &address)? else {
            return self.note_question(context, &local, || {
                let mut sent = vec![0; size.min(MAX_CALL_BYTES)];
                target.read(target.word(1), &mut sent).map(|()| sent)
            });
        };
        let is_stream = socket.kind() == Kind::Stream;
        if size > MAX_CALL_BYTES && !is_stream {
            return Err(Errno::MSGSIZE);
        }
        let mut data = vec![0; size.min(MAX_CALL_BYTES)];
        target.read(target.word(1), &mut data)?;
        let (from, to) = (data.as_ptr().cast::<c_void>(), address.pointer());
        // SAFETY: data and address are as long as given.
        let sent = unsafe { bsd::sendto(&socket, from, data.len(), flags | OURS, to, address.length()) };
        self.sent(local, flags, sent.map(|sent| sent as i64))
    }

    pub(crate) fn sendmsg(&self, context: &Context) -> Result<Step> {
        let (message, flags) = (Message::read(&self.target, self.target.word(1))?, self.target.int(2));
        let local = self.local()?;
        let Some(socket) = self.by_message(context, &local, &message, flags)? else {
            return self.note_question(context, &local, || message.data(&self.target, false));
        };
        let sent = self.send_one(&socket, &message, flags);
        self.sent(local, flags, sent)
    }

    /// Sends as many messages as possible without waiting.
    pub(crate) fn sendmmsg(&self, context: &Context) -> Result<Step> {
        let (first, count, flags) = (self.target.word(1), self.target.int(2) as u32, self.target.int(3));
        let local = self.local()?;
        if count == 0 {
            return Ok(Step::GoOn);
        }
        let message = Message::read(&self.target, first)?;
        let Some(socket) = self.by_message(context, &local, &message, flags)? else {
            if !netlink::is_routing_socket(local.raw()) {
                return Ok(Step::GoOn);
            }
            for index in 0..count.min(MAX_MESSAGES_AT_ONCE) {
                let at = first + u64::from(index) * MANY_STRIDE;
                let Ok(message) = Message::read(&self.target, at) else { break };
                self.note_question(context, &local, || message.data(&self.target, false))?;
            }
            return Ok(Step::GoOn);
        };
        let mut done = 0;
        for index in 0..count.min(MAX_MESSAGES_AT_ONCE) {
            let at = first + u64::from(index) * MANY_STRIDE;
            let sent = Message::read(&self.target, at).and_then(|message| {
                let sent = self.send_one(&socket, &message, flags)?;
                message.write_length(&self.target, sent)
            });
            match sent {
                Ok(()) => done = i64::from(index) + 1,
                Err(error) if done == 0 => return self.sent(local, flags, Err(error)),
                Err(_) => break,
            }
        }
        Ok(Step::Value(done))
    }

    fn send_one(&self, socket: &Socket<'_>, message: &Message, flags: c_int) -> Result<i64> {
        let data = message.data(&self.target, socket.kind() != Kind::Stream)?;
        let mut control = message.control(&self.target)?;
        let (name, length) = message.name();
        let name = Address::read(&self.target, name, length.cast_signed())?;
        let mut piece = piece(&data);
        let mut header = empty();
        (header.msg_iov, header.msg_iovlen) = (&raw mut piece, 1);
        (header.msg_name, header.msg_namelen) = (name.pointer().cast_mut().cast(), name.length());
        if !control.is_empty() {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = message.control_length() as _;
        }
        // SAFETY: all that the header points to is live, and as long as given.
        unsafe { bsd::sendmsg(socket, &raw const header, flags | OURS) }.map(|sent| sent as i64)
    }

    /// Returns the result of a sending call, which waits for room if it may block.
    fn sent(&self, local: Local, flags: c_int, sent: Result<i64>) -> Result<Step> {
        match sent {
            Err(Errno::AGAIN) if flags & libc::MSG_DONTWAIT == 0 && local.blocks()? => {
                let limit = local.timeout(Timeout::Send)?;
                // The kernel reports a datagram socket as writable even while the receiver has no room.
                Ok(Step::Wait(Wait { on: None, inode: 0, limit, overdue: Errno::AGAIN }))
            }
            Err(Errno::PIPE) if flags & libc::MSG_NOSIGNAL == 0 => {
                self.target.signal_broken_pipe();
                Err(Errno::PIPE)
            }
            sent => sent.map(Step::Value),
        }
    }

    pub(crate) fn recvfrom(&self, context: &Context) -> Result<Step> {
        let target = &self.target;
        let (size, flags) = (usize::try_from(target.word(2)).map_err(|_| Errno::INVAL)?, target.int(3));
        let local = self.local()?;
        let Some(socket) = bsd::overlay(local.raw()) else {
            return self.receive_answer_from(context, &local);
        };
        let mut answer = match target.word(4) {
            0 => None,
            at => Some(Answer::read(target, at, target.word(5))?),
        };
        let mut data = vec![0_u8; size.min(MAX_CALL_BYTES)];
        let to = answer.as_mut().map(Answer::pointers);
        let (address, length) =
            to.map_or((std::ptr::null_mut(), std::ptr::null_mut()), |to| (to.address, to.length));
        let from = data.as_mut_ptr().cast::<c_void>();
        let flags_now = flags | libc::MSG_DONTWAIT;
        // SAFETY: data and answer have as much room as given.
        let received = unsafe { bsd::recvfrom(&socket, from, data.len(), flags_now, address, length) };
        let received = match received {
            Err(Errno::AGAIN) if self.may_wait(&local, flags)? => {
                return local.wait(EventFlags::IN, Timeout::Recv, Errno::AGAIN);
            }
            received => received?,
        };
        target.write(target.word(1), &data[..copied(&socket, flags, received as usize, data.len())])?;
        if let Some(answer) = answer {
            answer.write(target)?;
        }
        Ok(Step::Value(received as i64))
    }

    pub(crate) fn recvmsg(&self, context: &Context) -> Result<Step> {
        let (message, flags) = (Message::read(&self.target, self.target.word(1))?, self.target.int(2));
        let local = self.local()?;
        let Some(socket) = receiver(&local, &message, flags) else {
            let received = self.receive_answer(context, &local, &message, flags)?;
            return Ok(received.map_or(Step::GoOn, Step::Value));
        };
        match self.receive_one(&socket, &message, flags) {
            Err(Errno::AGAIN) if self.may_wait(&local, flags)? => {
                local.wait(EventFlags::IN, Timeout::Recv, Errno::AGAIN)
            }
            received => received.map(Step::Value),
        }
    }

    /// Receives the available messages, and waits for the others unless flags forbid it. With a timeout,
    /// which Linux checks only after each message, it waits for the first.
    pub(crate) fn recvmmsg(&mut self, context: &Context) -> Result<Step> {
        let (first, count, flags) = (self.target.word(1), self.target.int(2) as u32, self.target.int(3));
        let local = self.local()?;
        if count == 0 {
            return Ok(Step::GoOn);
        }
        let message = Message::read(&self.target, first)?;
        let Some(socket) = receiver(&local, &message, flags) else {
            return self.receive_first_answer(context, &local, flags);
        };
        let limit_at = self.target.word(4);
        if limit_at != 0 && self.limit.is_none() {
            let mut time = [0; 16];
            self.target.read(limit_at, &mut time)?;
            let [tv_sec, tv_nsec] = [&time[..8], &time[8..]]
                .map(|half| i64::from_ne_bytes(half.try_into().expect("half of 16 bytes")));
            self.limit = Some(TimeLimit::of(&timespec { tv_sec, tv_nsec })?);
        }
        let is_patient =
            socket.kind() != Kind::Stream && flags & libc::MSG_WAITFORONE == 0 && self.limit.is_none();
        while self.received < i64::from(count.min(MAX_MESSAGES_AT_ONCE)) {
            if self.received > 0 && !bsd::may_receive_more(&socket, libc::MSG_DONTWAIT).unwrap_or(false) {
                break;
            }
            let at = first + self.received as u64 * MANY_STRIDE;
            let received = Message::read(&self.target, at).and_then(|message| {
                let flags = flags & !libc::MSG_WAITFORONE;
                let received = self.receive_one(&socket, &message, flags)?;
                message.write_length(&self.target, received)
            });
            match received {
                Ok(()) => {
                    self.received += 1;
                    if let Some(limit) = &mut self.limit {
                        limit.note_message();
                        if limit.is_over() {
                            break;
                        }
                    }
                }
                Err(Errno::AGAIN)
                    if (self.received == 0 || is_patient) && self.may_wait(&local, flags)? =>
                {
                    return local.wait(EventFlags::IN, Timeout::Recv, Errno::AGAIN);
                }
                Err(error) if self.received == 0 => return Err(error),
                Err(error) => {
                    bsd::keep_for_next_call(&socket, error);
                    break;
                }
            }
        }
        if let Some(limit) = &self.limit {
            let left = limit.left();
            self.target.write(limit_at, &[left.tv_sec, left.tv_nsec].map(i64::to_ne_bytes).concat())?;
        }
        Ok(Step::Value(self.received))
    }

    fn receive_one(&self, socket: &Socket<'_>, message: &Message, flags: c_int) -> Result<i64> {
        let mut data = vec![0; message.size().min(MAX_CALL_BYTES)];
        let mut into = Received::for_message(message, &mut data);
        // SAFETY: all that the header points to is live, and has as much room as given.
        let received = unsafe { bsd::recvmsg(socket, &raw mut into.header, flags | libc::MSG_DONTWAIT) }?;
        let copied = copied(socket, flags, received as usize, data.len());
        message.write(&self.target, &data[..copied], &into)?;
        Ok(received as i64)
    }

    fn may_wait(&self, local: &Local, flags: c_int) -> Result<bool> {
        Ok(flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) == 0 && local.blocks()?)
    }

    /// Returns the overlay socket for a call with or without an address.
    fn by_address<'fd>(
        &self,
        context: &Context,
        local: &Local,
        address: &Address,
    ) -> Result<Option<Socket<'fd>>> {
        match address.is_none() {
            true => Ok(bsd::overlay(local.raw())),
            false if address.is_internets() => self.by_remote(context, local, address),
            // An overlay socket rejects other families here, because the kernel sees an AF_UNIX socket.
            false => Ok(bsd::overlay(local.raw())),
        }
    }

    /// Does the same for a message. The kernel sends plain data of a stream.
    fn by_message<'fd>(
        &self,
        context: &Context,
        local: &Local,
        message: &Message,
        flags: c_int,
    ) -> Result<Option<Socket<'fd>>> {
        let (at, length) = message.name();
        let address = Address::read(&self.target, at, length.cast_signed())?;
        let socket = self.by_address(context, local, &address)?;
        let is_special = flags & (libc::MSG_OOB | libc::MSG_FASTOPEN) != 0 || !message.is_plain();
        Ok(socket.filter(|socket| is_special || socket.kind() != Kind::Stream))
    }
}

/// Returns the number of received bytes that the program gets. Discarded stream data is not copied.
fn copied(socket: &Socket<'_>, flags: c_int, received: usize, room: usize) -> usize {
    let is_discarded = socket.kind() == Kind::Stream && flags & libc::MSG_TRUNC != 0;
    if is_discarded { 0 } else { received.min(room) }
}

/// Returns the overlay socket that receives. The kernel receives plain data of a stream.
fn receiver<'fd>(local: &Local, message: &Message, flags: c_int) -> Option<Socket<'fd>> {
    let special = libc::MSG_OOB | libc::MSG_ERRQUEUE | libc::MSG_TRUNC;
    let is_special = flags & special != 0 || !message.is_plain();
    bsd::overlay(local.raw()).filter(|socket| is_special || socket.kind() != Kind::Stream)
}
