//! skeleton
/// Named event counts.
#[derive(Debug, Default)]
pub struct Counters {}
impl Counters {
    /// Every counter with its name.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> { todo!() }
}
