//! DHT nodes that are stored for the next start.

use super::{StateDir, StateError, read_regular_secret_file, write_atomically};

const DHT_NODES_FILE: &str = "dht-nodes";

impl StateDir {
    /// Returns the last stored list of DHT nodes. Returns `None` if there is none, or if the file is not
    /// private or no text, because the list is optional.
    pub(crate) fn dht_nodes(&self) -> Option<String> {
        if let Some(later) = &self.later {
            return later.dht_nodes.clone();
        }
        match read_regular_secret_file(&self.path.join(DHT_NODES_FILE)) {
            Ok(text) => Some(text.to_string()),
            Err(StateError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "the nodes of the DHT that were kept are not used");
                None
            }
        }
    }

    /// Stores a list of DHT nodes in place of the last one.
    pub(crate) fn keep_dht_nodes(&self, text: &str) {
        if self.later.is_some() {
            return;
        }
        if let Err(error) = write_atomically(&self.path, DHT_NODES_FILE, text.as_bytes()) {
            tracing::debug!(%error, "nodes of the DHT are not kept for the next start");
        }
    }
}
