//! The program as its users run it.

mod common;
mod identity;
mod lan;
mod netcat;
mod observe;
