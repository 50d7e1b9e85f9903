use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};

use super::{Initiation, MessageType, ParseError, Reader, VERSION};
use crate::crypto::{SuiteSet, TAG};
use crate::id::{DiscoveryKey, PublicIdentity};

/// Flag bit 0: the receiver should answer with a hello.
const REPLY_WANTED: u8 = 1;

/// Unicast introduction, sealed under the network's discovery key.
///
/// ```text
/// offset  0     1        2       26       58        90         98      99       100       124    182
///        +----+---------+-------+--------+---------+----------+-------+--------+---------+------+-----+
///        |0xD6| version | nonce | X25519 | Ed25519 | instance | flags | suites | echo 24 | zero | tag |
///        | 1  | 1       | 24    | key 32 | key 32  | 8        | 1     | 1      |         | 58   | 16  |
///        +----+---------+-------+--------+---------+----------+-------+--------+---------+------+-----+
///        |<-- AAD ---->|       |<----------------- XChaCha20-Poly1305 -------------------------------->|
/// ```
///
/// It proves nothing but knowledge of that key. The handshake that follows proves the identity. The zeros
/// make it as long as an [`Initiation`], so that an initiation may answer it before the node at its source
/// address is proven. The echo of a nonce shows that its sender receives there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Sender of the hello.
    pub identity: PublicIdentity,
    /// Random number drawn at each start of the sender, so a new one means that it was restarted.
    pub instance: u64,
    /// True if the receiver should answer with a hello.
    pub reply_wanted: bool,
    /// Suites that the sender has.
    pub suites: SuiteSet,
    /// Nonce of the hello that this one answers; zeros if it answers none.
    pub echo: [u8; 24],
}

impl Hello {
    /// Length on the wire, in bytes: that of an initiation. A question and its answer are equally long.
    pub const LEN: usize = PLAINTEXT_AT + PLAINTEXT + TAG;

    /// Opens a datagram that may belong to the network with this key.
    ///
    /// # Errors
    /// Returns [`ParseError::Unauthentic`] if it belongs to another network; otherwise another error for a
    /// malformed one. Unknown flags are ignored.
    pub fn open(key: &DiscoveryKey, datagram: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::Hello)?;
        reader.version()?;
        let nonce: &[u8; 24] = reader.array()?;
        let sealed: &[u8; PLAINTEXT] = reader.array()?;
        let tag: &[u8; TAG] = reader.array()?;
        reader.end()?;

        let mut plaintext = [0; PLAINTEXT];
        let buffer = InOutBuf::new(sealed, &mut plaintext).expect("equal lengths");
        XChaCha20Poly1305::new(key.hello_key().into())
            // The type and version are authentic too, so a hello cannot be replayed as another message.
            .decrypt_inout_detached(nonce.into(), &datagram[..AAD], buffer, tag.into())
            .map_err(|_| ParseError::Unauthentic)?;
        Self::parse(&plaintext)
    }

    /// Seals the message and appends it to `out`. The nonce comes from a random generator of good quality.
    pub fn seal(&self, key: &DiscoveryKey, nonce: [u8; 24], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[MessageType::Hello as u8, VERSION]);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&self.identity.to_bytes());
        out.extend_from_slice(&self.instance.to_be_bytes());
        out.push(if self.reply_wanted { REPLY_WANTED } else { 0 });
        out.push(self.suites.to_wire());
        out.extend_from_slice(&self.echo);
        // As long as an initiation, so that an initiation may answer it without amplification.
        out.extend_from_slice(&[0; PADDING]);

        let (head, plaintext) = out[start..].split_at_mut(PLAINTEXT_AT);
        let tag = XChaCha20Poly1305::new(key.hello_key().into())
            .encrypt_inout_detached(&nonce.into(), &head[..AAD], plaintext.into())
            .expect("sealing fails only beyond 256 GiB");
        out.extend_from_slice(&tag);
    }

    fn parse(plaintext: &[u8; PLAINTEXT]) -> Result<Self, ParseError> {
        let mut reader = Reader(plaintext);
        Ok(Self {
            identity: PublicIdentity::from_bytes(reader.array()?).map_err(|_| ParseError::Value)?,
            instance: reader.u64()?,
            reply_wanted: reader.u8()? & REPLY_WANTED != 0,
            suites: SuiteSet::from_wire(reader.u8()?),
            echo: *reader.array()?,
        })
    }
}

/// Length of the associated data: type and version are authenticated, but in clear.
const AAD: usize = 2;
const PLAINTEXT_AT: usize = AAD + 24;
const FIELDS: usize = PublicIdentity::LEN + 8 + 1 + 1 + 24;
const PADDING: usize = Initiation::MIN - PLAINTEXT_AT - FIELDS - TAG;
const PLAINTEXT: usize = FIELDS + PADDING;
