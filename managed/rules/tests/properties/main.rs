//! Properties of rules, for random files, flows and bytes.

mod hostile;
mod naive;
mod spec;
