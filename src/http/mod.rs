//! Adapters that let axum, hyper and tonic use the overlay's sockets directly.
//!
//! Both of its features are off by default. The feature `axum` makes [`TcpListener`](crate::TcpListener) an
//! `axum::serve::Listener`:
//!
#![cfg_attr(feature = "axum", doc = "```no_run")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::extract::ConnectInfo;
//! use axum::{Router, routing::get};
//! use peersock::TcpListener;
//! use peersock::http::PeerAddr;
//!
//! # async fn example() -> std::io::Result<()> {
//! async fn hello(ConnectInfo(from): ConnectInfo<PeerAddr>) -> String {
//!     format!("hello {from}\n")
//! }
//!
//! let app = Router::new().route("/", get(hello)).into_make_service_with_connect_info::<PeerAddr>();
//! axum::serve(TcpListener::bind("[::]:80").await?, app).await
//! # }
//! ```
//!
//! The feature `hyper` has a `Connector` for the clients of hyper and tonic. With it
//! [`TcpStream`](crate::TcpStream) also implements `hyper::rt::Read` and `hyper::rt::Write`:
//!
#![cfg_attr(feature = "hyper", doc = "```no_run")]
#![cfg_attr(not(feature = "hyper"), doc = "```ignore")]
//! use http_body_util::Empty;
//! use hyper::body::Bytes;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use peersock::http::Connector;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(Connector::new());
//! let answer = client.get("http://alpha/".parse()?).await?;
//! println!("{}", answer.status());
//! # Ok(())
//! # }
//! ```
//!
//! Neither has TLS, and none is needed, because the overlay encrypts and authenticates all data.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "hyper")]
mod connector;
#[cfg(feature = "hyper")]
mod stream;

#[cfg(feature = "axum")]
pub use self::axum::PeerAddr;
#[cfg(feature = "hyper")]
pub use connector::{Connecting, Connector};
