//! Long-term credentials (RFC 8489, 9.2): requests are signed with a key of user name, realm and password.

use stun_types::attribute::{
    Nonce, PasswordAlgorithm, PasswordAlgorithmValue, PasswordAlgorithms, Realm, Username,
};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageWriteExt as _, MessageWriteVec,
};
use zeroize::Zeroizing;

use crate::quiet::quietly;

/// Largest realm and nonce in bytes (RFC 8489, 14.9, 14.10).
const MAX_TEXT: usize = 763;

/// Limit of the algorithms that a server may offer; two exist. Each request repeats them, so without a limit
/// a forger of the first answer could make requests arbitrarily long.
const MAX_OFFERED: usize = 8;

/// Beginning of the nonces of servers that support more than RFC 5389 (RFC 8489, 9.2); four characters of
/// flags follow.
const NONCE_COOKIE: &str = "obMatJos2";

/// The credentials, and the parameters that the server has sent. No `Debug`, because it holds keys.
pub(super) struct Auth {
    user: String,
    password: Zeroizing<String>,
    session: Option<Session>,
}

struct Session {
    realm: String,
    nonce: String,
    /// The algorithms that the server offers, which requests must repeat; empty if it offers no choice.
    offered: Vec<PasswordAlgorithmValue>,
    algorithm: IntegrityAlgorithm,
    key: IntegrityKey,
}

impl Auth {
    pub(super) fn new(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: Zeroizing::new(password.to_owned()), session: None }
    }

    /// Returns true if requests are signed.
    pub(super) fn is_known(&self) -> bool {
        self.session.is_some()
    }

    /// Learns realm and nonce from a response with the error 401 or 438. Returns false if they are missing or
    /// too long for a request.
    pub(super) fn learn(&mut self, response: &Message<'_>) -> bool {
        let realm = response.attribute::<Realm>();
        let nonce = response.attribute::<Nonce>();
        let (Ok(realm), Ok(nonce)) = (realm, nonce) else { return false };
        let (realm, nonce) = (realm.realm().to_owned(), nonce.nonce().to_owned());
        if realm.len() > MAX_TEXT || nonce.len() > MAX_TEXT {
            return false;
        }
        // Without the cookie in the nonce, the attribute does not come from the server. The nonce prevents
        // bid-down, because the signature covers it.
        let offered = response.attribute::<PasswordAlgorithms>().ok();
        let offered = offered.filter(|_| nonce.starts_with(NONCE_COOKIE));
        let offered = offered.map(|offered| offered.algorithms().to_vec()).unwrap_or_default();
        if offered.len() > MAX_OFFERED {
            return false;
        }
        let algorithm = match offered.contains(&PasswordAlgorithmValue::SHA256) {
            true => IntegrityAlgorithm::Sha256,
            false => IntegrityAlgorithm::Sha1,
        };
        let password = self.password.to_string();
        let credentials = LongTermKeyCredentials::new(self.user.clone(), password, realm.clone());
        let key = quietly(|| credentials.make_key(algorithm));
        self.session = Some(Session { realm, nonce, offered, algorithm, key });
        true
    }

    /// Learns the nonce of a response with the error 438, which any host can forge. Returns false if its
    /// realm differs from the server's, because with another realm no answer of the server could be verified.
    pub(super) fn renew(&mut self, response: &Message<'_>) -> bool {
        let realm = response.attribute::<Realm>();
        let is_its = |session: &Session| realm.as_ref().is_ok_and(|realm| realm.realm() == session.realm);
        self.session.as_ref().is_none_or(is_its) && self.learn(response)
    }

    /// Signs a request, if realm and nonce are known.
    pub(super) fn sign(&self, message: &mut MessageWriteVec) {
        let Some(session) = &self.session else { return };
        let once = "each is added once, and their lengths were checked";
        message.add_attribute(&Username::new(&self.user).expect(once)).expect(once);
        message.add_attribute(&Nonce::new(&session.nonce).expect(once)).expect(once);
        message.add_attribute(&Realm::new(&session.realm).expect(once)).expect(once);
        if !session.offered.is_empty() {
            message.add_attribute(&PasswordAlgorithms::new(&session.offered)).expect(once);
            let chosen = match session.algorithm {
                IntegrityAlgorithm::Sha1 => PasswordAlgorithmValue::MD5,
                IntegrityAlgorithm::Sha256 => PasswordAlgorithmValue::SHA256,
            };
            message.add_attribute(&PasswordAlgorithm::new(chosen)).expect(once);
        }
        // The library's span contains the key.
        quietly(|| message.add_message_integrity_with_key(&session.key, session.algorithm)).expect(once);
    }

    /// Returns true if a response was signed with the same key and algorithm as the requests.
    pub(super) fn verifies(&self, response: &Message<'_>) -> bool {
        let Some(session) = &self.session else { return false };
        quietly(|| response.validate_integrity_with_key(&session.key)).is_ok_and(|by| by == session.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use stun_types::message::{BINDING, MessageClass, MessageType, MessageWrite as _, TransactionId};

    use super::*;

    /// The request with long-term credentials of RFC 5769 (2.4), whose password is "TheMatrIX".
    const REQUEST: &[u8] =
        b"\x00\x01\x00\x60\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
        \x00\x06\x00\x12\xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\xe3\x82\xaf\xe3\x82\xb9\x00\x00\
        \x00\x15\x00\x1c\x66\x2f\x2f\x34\x39\x39\x6b\x39\x35\x34\x64\x36\x4f\x4c\x33\x34\x6f\x4c\x39\x46\
        \x53\x54\x76\x79\x36\x34\x73\x41\
        \x00\x14\x00\x0b\x65\x78\x61\x6d\x70\x6c\x65\x2e\x6f\x72\x67\x00\
        \x00\x08\x00\x14\xf6\x70\x24\x65\x6d\xd6\x4a\x3e\x02\xb8\xe0\x71\x2e\x85\xc9\xa2\x8c\xa8\x96\x66";

    fn matrix() -> Auth {
        Auth::new("\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}", "TheMatrIX")
    }

    #[test]
    fn the_sample_request_of_rfc_5769_is_made_and_verified() {
        let sample = Message::from_bytes(REQUEST).expect("a message");
        let mut auth = matrix();
        assert!(!auth.verifies(&sample), "nothing is known of the server");
        // The sample contains the realm and the nonce of a server's refusal.
        assert!(auth.learn(&sample));
        assert!(auth.verifies(&sample));
        let id = TransactionId::from(0x78ad_3433_c6ad_72c0_29da_412e);
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let mut message = Message::builder(kind, id, MessageWriteVec::new());
        auth.sign(&mut message);
        assert_eq!(message.finish(), REQUEST);

        let mut damaged = REQUEST.to_vec();
        damaged[30] ^= 1;
        assert!(!auth.verifies(&Message::from_bytes(&damaged).expect("a message")));
        let mut other = Auth::new(&auth.user, "TheMatrix");
        assert!(other.learn(&sample) && !other.verifies(&sample), "another password");
    }

    #[test]
    fn sha_256_is_used_where_the_server_offers_it_and_no_less_is_believed() {
        let refusal = |nonce: &str| {
            let kind = MessageType::from_class_method(MessageClass::Error, BINDING);
            let mut message = Message::builder(kind, TransactionId::from(1), MessageWriteVec::new());
            let offered = [PasswordAlgorithmValue::MD5, PasswordAlgorithmValue::SHA256];
            message.add_attribute(&Realm::new("r").unwrap()).unwrap();
            message.add_attribute(&Nonce::new(nonce).unwrap()).unwrap();
            message.add_attribute(&PasswordAlgorithms::new(&offered)).unwrap();
            message.finish()
        };
        let request = |auth: &Auth| {
            let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
            let mut message = Message::builder(kind, TransactionId::from(1), MessageWriteVec::new());
            auth.sign(&mut message);
            message.finish()
        };
        let (mut old, mut new) = (matrix(), matrix());
        assert!(old.learn(&Message::from_bytes(&refusal("plain")).unwrap()));
        assert!(new.learn(&Message::from_bytes(&refusal("obMatJos2gAAA")).unwrap()));
        let (by_old, by_new) = (request(&old), request(&new));
        let [by_old, by_new] = [&by_old, &by_new].map(|bytes| Message::from_bytes(bytes).unwrap());
        assert!(by_old.attribute::<PasswordAlgorithms>().is_err());
        assert_eq!(
            by_new.attribute::<PasswordAlgorithm>().unwrap().algorithm(),
            PasswordAlgorithmValue::SHA256
        );
        assert!(old.verifies(&by_old) && new.verifies(&by_new));
        assert!(!new.verifies(&by_old) && !old.verifies(&by_new));
    }
}
