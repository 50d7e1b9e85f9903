//! The table of all pipes, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use peersock_proxy::serving::Owner;

use super::{Budget, Pipe};
use crate::limits::{MAX_PIPES, MAX_QUEUED_BYTES_OF_ALL};
use crate::problem::{Kind, Problem};

/// The pipes of a server.
#[derive(Debug, Clone)]
pub(crate) struct Pipes {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    /// Limit of the connections that one member has opened.
    most_of_member: usize,
    pub(crate) budget: Budget,
}

#[derive(Debug)]
enum Entry {
    /// The pipe is being opened; the value is the member that opens it, `None` for a client.
    Reserved(Option<Owner>),
    Open(Arc<Pipe>),
}

/// A name for a pipe that is being opened; dropping it frees the name.
pub(crate) struct Reserved {
    pipes: Pipes,
    name: Option<String>,
    owner: Option<Owner>,
}

impl Pipes {
    pub(crate) fn new(most_of_member: usize) -> Pipes {
        Pipes { entries: Arc::default(), most_of_member, budget: Budget::new(MAX_QUEUED_BYTES_OF_ALL) }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().expect("no panic under this lock")
    }

    /// Returns true if a member has reached its limit of connections. Ended ones do not count, although they
    /// stay until a client closes them or their place is needed.
    pub(crate) fn has_share(&self, owner: Owner) -> bool {
        has_share(&self.entries(), owner, self.most_of_member)
    }

    /// Reserves a name for a pipe that a client opens. If the table is full, ended pipes are removed.
    pub(crate) fn reserve(&self, name: &str) -> Result<Reserved, Problem> {
        self.reserve_for(name, None)
    }

    /// Reserves a name for a connection that a member has opened, unless the member has reached its limit.
    pub(crate) fn reserve_for(&self, name: &str, owner: Option<Owner>) -> Result<Reserved, Problem> {
        let mut gone = Vec::new();
        let mut entries = self.entries();
        if entries.contains_key(name) {
            return Err(Kind::NameTaken
                .because(format_args!("there is a pipe {name}: close it, or take another name")));
        }
        if owner.is_some_and(|owner| has_share(&entries, owner, self.most_of_member)) {
            let most = self.most_of_member;
            return Err(Kind::TooMany.because(format_args!("a member has {most} pipes, and has no more")));
        }
        if entries.len() >= MAX_PIPES {
            let over = |entry: &Entry| matches!(entry, Entry::Open(pipe) if pipe.is_over());
            let names: Vec<_> =
                entries.iter().filter(|(_, entry)| over(entry)).map(|(name, _)| name.clone()).collect();
            gone.extend(names.iter().filter_map(|name| entries.remove(name)));
        }
        if entries.len() >= MAX_PIPES {
            return Err(Kind::TooMany.because(format_args!("all {MAX_PIPES} pipes are in use: close one")));
        }
        entries.insert(name.to_owned(), Entry::Reserved(owner));
        // Connections close without the lock.
        drop(entries);
        drop(gone);
        Ok(Reserved { pipes: self.clone(), name: Some(name.to_owned()), owner })
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Pipe>, Problem> {
        match self.entries().get(name) {
            Some(Entry::Open(pipe)) => Ok(Arc::clone(pipe)),
            _ => Err(no_pipe(name)),
        }
    }

    /// Removes and returns a pipe.
    pub(crate) fn remove(&self, name: &str) -> Result<Arc<Pipe>, Problem> {
        let mut entries = self.entries();
        match entries.get(name) {
            Some(Entry::Open(pipe)) => {
                let pipe = Arc::clone(pipe);
                entries.remove(name);
                Ok(pipe)
            }
            _ => Err(no_pipe(name)),
        }
    }

    /// Removes a pipe as [`Pipes::remove`] does, if the name still belongs to it.
    pub(crate) fn forget(&self, pipe: &Arc<Pipe>) {
        let mut entries = self.entries();
        if matches!(entries.get(&pipe.name), Some(Entry::Open(found)) if Arc::ptr_eq(found, pipe)) {
            entries.remove(&pipe.name);
        }
    }

    /// Closes all pipes.
    pub(crate) async fn close_all(&self) {
        for pipe in self.all() {
            pipe.close(false).await;
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Pipe>> {
        let entries = self.entries();
        let open = |entry: &Entry| match entry {
            Entry::Open(pipe) => Some(Arc::clone(pipe)),
            Entry::Reserved(_) => None,
        };
        entries.values().filter_map(open).collect()
    }
}

impl Reserved {
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().expect("it is there until the pipe is")
    }

    pub(crate) fn budget(&self) -> Budget {
        self.pipes.budget.clone()
    }

    /// Returns the member that has opened the connection.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// Replaces the reservation by the open pipe.
    pub(crate) fn fill(mut self, pipe: Arc<Pipe>) -> Arc<Pipe> {
        if let Some(name) = self.name.take() {
            self.pipes.entries().insert(name, Entry::Open(Arc::clone(&pipe)));
        }
        pipe
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.pipes.entries().remove(&name);
        }
    }
}

fn has_share(entries: &BTreeMap<String, Entry>, owner: Owner, most: usize) -> bool {
    let is_its = |entry: &&Entry| match entry {
        Entry::Reserved(of) => *of == Some(owner),
        Entry::Open(pipe) => pipe.owner == Some(owner) && !pipe.is_over(),
    };
    entries.values().filter(is_its).count() >= most
}

fn no_pipe(name: &str) -> Problem {
    Kind::NoPipe.because(format_args!("there is no pipe {name}: open it first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_once_and_there_are_only_so_many() {
        let pipes = Pipes::new(1);
        let kind = |reserved: Result<Reserved, Problem>| reserved.map(drop).map_err(|problem| problem.kind());
        let first = pipes.reserve("first").expect("it is free");
        assert_eq!(kind(pipes.reserve("first")), Err(Kind::NameTaken));
        assert_eq!(pipes.find("first").map(drop).map_err(|problem| problem.kind()), Err(Kind::NoPipe));
        let rest: Vec<_> = (1..MAX_PIPES).map(|at| pipes.reserve(&at.to_string()).expect("room")).collect();
        assert_eq!(kind(pipes.reserve("more")), Err(Kind::TooMany));
        drop(first);
        assert_eq!(kind(pipes.reserve("more")), Ok(()));
        drop(rest);
        assert!(pipes.entries().is_empty());
    }

    #[test]
    fn a_member_has_its_share_and_clients_have_the_rest() {
        let pipes = Pipes::new(2);
        let [one, other] = ["fd00::1", "fd00::2"].map(|text| Owner::Address(text.parse().unwrap()));
        let reserve = |name: &str, owner| pipes.reserve_for(name, owner).map_err(|problem| problem.kind());
        let _first = reserve("1", Some(one)).expect("it has none");
        assert!(!pipes.has_share(one));
        let second = reserve("2", Some(one)).expect("it has one");
        assert!(pipes.has_share(one) && !pipes.has_share(other));
        // Both sockets of a listener may have seen room for one more.
        assert_eq!(reserve("3", Some(one)).map(drop), Err(Kind::TooMany));
        let _others = [reserve("3", Some(other)), reserve("4", None), reserve("5", None), reserve("6", None)]
            .map(|reserved| reserved.expect("there is room"));
        drop(second);
        assert!(reserve("2", Some(one)).is_ok());
    }
}
