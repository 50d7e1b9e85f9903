//! Both ends as their users see them, and attacks on them.

mod between;
mod certificates;
mod common;
mod hostile;
mod office;
mod proxies;
mod slow;
mod tls;
mod transports;
mod turn;
