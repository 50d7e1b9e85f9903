//! All pipes, by their names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Budget, Pipe};
use crate::limits::MOST_PIPES;
use crate::problem::{Kind, Problem};

/// The pipes of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pipes {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    pub(crate) budget: Budget,
}

#[derive(Debug)]
enum Entry {
    /// It is being opened.
    Reserved,
    Open(Arc<Pipe>),
}

/// A name for a pipe that is being opened; it is free again if this is dropped.
pub(crate) struct Reserved {
    pipes: Pipes,
    name: Option<String>,
}

impl Pipes {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().expect("no panic under this lock")
    }

    /// Keeps a name for a pipe. If there are as many as there may be, those that are over go.
    pub(crate) fn reserve(&self, name: &str) -> Result<Reserved, Problem> {
        let mut gone = Vec::new();
        let mut entries = self.entries();
        if entries.contains_key(name) {
            return Err(Kind::NameTaken
                .because(format_args!("there is a pipe {name}: close it, or take another name")));
        }
        if entries.len() >= MOST_PIPES {
            let over = |entry: &Entry| matches!(entry, Entry::Open(pipe) if pipe.is_over());
            let names: Vec<_> =
                entries.iter().filter(|(_, entry)| over(entry)).map(|(name, _)| name.clone()).collect();
            gone.extend(names.iter().filter_map(|name| entries.remove(name)));
        }
        if entries.len() >= MOST_PIPES {
            return Err(Kind::TooMany
                .because(format_args!("there are {MOST_PIPES} pipes, and there are no more: close one")));
        }
        entries.insert(name.to_owned(), Entry::Reserved);
        // Connections close without the lock.
        drop(entries);
        drop(gone);
        Ok(Reserved { pipes: self.clone(), name: Some(name.to_owned()) })
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Pipe>, Problem> {
        match self.entries().get(name) {
            Some(Entry::Open(pipe)) => Ok(Arc::clone(pipe)),
            _ => Err(no_pipe(name)),
        }
    }

    /// Takes a pipe out.
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

    /// As [`Pipes::remove`], if it is still this one.
    pub(crate) fn forget(&self, pipe: &Arc<Pipe>) {
        let mut entries = self.entries();
        if matches!(entries.get(&pipe.name), Some(Entry::Open(found)) if Arc::ptr_eq(found, pipe)) {
            entries.remove(&pipe.name);
        }
    }

    /// Closes all.
    pub(crate) async fn close_all(&self) {
        for pipe in self.all() {
            pipe.close(false).await;
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Pipe>> {
        let entries = self.entries();
        let open = |entry: &Entry| match entry {
            Entry::Open(pipe) => Some(Arc::clone(pipe)),
            Entry::Reserved => None,
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

    /// The pipe is open.
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

fn no_pipe(name: &str) -> Problem {
    Kind::NoPipe.because(format_args!("there is no pipe {name}: open it first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_once_and_there_are_only_so_many() {
        let pipes = Pipes::default();
        let kind = |reserved: Result<Reserved, Problem>| reserved.map(drop).map_err(|problem| problem.kind());
        let first = pipes.reserve("first").expect("it is free");
        assert_eq!(kind(pipes.reserve("first")), Err(Kind::NameTaken));
        assert_eq!(pipes.find("first").map(drop).map_err(|problem| problem.kind()), Err(Kind::NoPipe));
        let rest: Vec<_> = (1..MOST_PIPES).map(|at| pipes.reserve(&at.to_string()).expect("room")).collect();
        assert_eq!(kind(pipes.reserve("more")), Err(Kind::TooMany));
        drop(first);
        assert_eq!(kind(pipes.reserve("more")), Ok(()));
        drop(rest);
        assert!(pipes.entries().is_empty());
    }
}
