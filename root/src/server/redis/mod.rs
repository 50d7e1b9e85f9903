//! Directory of several roots in Redis.
//!
//! | key | value | ends after |
//! |---|---|---|
//! | `peersock:2:node:` and the first 10 bytes of a node ID | a hash of claims: for each root that has such a node (both IDs), when that ends (10 digits, seconds by Redis' clock), the node's identity and registration | the last claim |
//! | `peersock:2:root:` and a root's node ID | the root's record: where it listens | 90 s; written every 30 s |
//!
//! IDs in keys are hexadecimal, all other values are bytes. Each record is signed by its subject, and
//! verified when it is read. So an attacker who writes to Redis can hide nodes, and nothing else. A root that
//! was killed is no longer named once its record has expired, whatever still points to it. Its claims go with
//! the next write to the same key, or with the key, so roots can come and go for ever.
//!
//! A separate thread waits for Redis, so that the relaying thread never does. While Redis is away, or too
//! slow, the root goes on with its own nodes. When Redis comes back, the root writes all of them.

mod batch;
#[doc(hidden)]
pub mod fuzzing;
mod link;
mod store;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use peersock_overlay::Identity;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::directory::{Heard, Plug, Shared, channels};
use store::Store;

/// Address and credentials of a directory in Redis.
///
/// ```
/// use peersock_root::server::RedisConfig;
///
/// let config = RedisConfig::new("redis://127.0.0.1:6379/0", None)?;
/// assert_eq!(config.to_string(), "127.0.0.1:6379");
/// assert!(RedisConfig::new("http://127.0.0.1", None).is_err());
/// # Ok::<(), peersock_root::server::RedisUrlError>(())
/// ```
#[derive(Clone)]
pub struct RedisConfig(ConnectionInfo);

/// Error for a text that is no URL of Redis, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrlError(String);

impl RedisConfig {
    /// Parses `redis://` or, by TLS, `rediss://`, then `[USER@]HOST[:PORT][/DATABASE]`. Redis must be version
    /// 6.2 or later.
    ///
    /// # Errors
    /// Fails for any other text, and for one with a password, because all users of the machine and logs would
    /// show it.
    pub fn new(url: &str, password: Option<&Zeroizing<String>>) -> Result<Self, RedisUrlError> {
        let parsed = url.into_connection_info().map_err(|error| RedisUrlError(reason(&error)))?;
        // The parser takes any path for a Unix socket.
        if matches!(parsed.addr(), ConnectionAddr::Unix(_)) && !url.contains("unix:") {
            return Err(RedisUrlError("it does not begin with redis:// or rediss://".to_owned()));
        }
        let settings = parsed.redis_settings().clone();
        if settings.password().is_some() {
            return Err(RedisUrlError("it has a password in it, which others would see".to_owned()));
        }
        let settings = match password {
            Some(password) => settings.set_password(password.as_str()),
            None => settings,
        };
        Ok(Self(parsed.set_redis_settings(settings)))
    }
}

/// Returns the reason without the text, which may hold a password.
fn reason(error: &redis::RedisError) -> String {
    error.detail().map_or_else(|| "it is no URL of Redis".to_owned(), str::to_owned)
}

/// Shows the address without the credentials.
impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.addr().fmt(f)
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisConfig").field(&self.to_string()).finish()
    }
}

impl fmt::Display for RedisUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the URL of a Redis: {}", self.0)
    }
}

impl std::error::Error for RedisUrlError {}

/// Thread that keeps the directory.
pub(super) struct Keeper {
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) shared: Arc<Shared>,
    pub(super) thread: JoinHandle<()>,
}

/// Starts the directory's thread for this root, which listens at `endpoints`.
pub(super) fn start(config: RedisConfig, root: Arc<Identity>, endpoints: &str) -> io::Result<(Plug, Keeper)> {
    let store = Store::new(root, endpoints)?;
    let client = redis::Client::open(config.0.clone()).map_err(|error| io::Error::other(reason(&error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (plug, socket, heard) = channels();
    let shared = socket.shared.clone();
    let thread = std::thread::Builder::new().name("peersock-redis".into()).spawn(move || {
        runtime.block_on(link::run(&client, &config.to_string(), Arc::new(store), socket));
    })?;
    Ok((plug, Keeper { heard, shared, thread }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_it_has_no_password() {
        let password = Zeroizing::new("hush".to_owned());
        let config = RedisConfig::new("rediss://root@redis.example:6380/3", Some(&password)).expect("good");
        for text in [config.to_string(), format!("{config:?}")] {
            assert!(text.contains("redis.example:6380") && !text.contains("hush"), "{text}");
        }
        for url in
            ["redis://:hush@127.0.0.1", "redis://root:hush@127.0.0.1", "redis://127.0.0.1/x?hush", "hush"]
        {
            let error = RedisConfig::new(url, None).expect_err(url).to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
