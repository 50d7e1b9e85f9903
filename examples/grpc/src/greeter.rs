//! The service `Greeter`, written by hand, as `tonic-prost-build` would make it with `protoc` of
//!
//! ```proto
//! package peersock.example;
//!
//! service Greeter {
//!   rpc SayHello (HelloRequest) returns (HelloReply);
//! }
//! message HelloRequest { string name = 1; }
//! message HelloReply { string message = 1; }
//! ```

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{self, NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const SAY_HELLO: &str = "/peersock.example.Greeter/SayHello";

/// The message that is sent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloRequest {
    /// Who is greeted.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// The message that comes back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloReply {
    /// The greeting.
    #[prost(string, tag = "1")]
    pub message: String,
}

/// The server's side.
#[derive(Clone, Copy, Debug)]
pub struct Greeter;

impl UnaryService<HelloRequest> for Greeter {
    type Response = HelloReply;
    type Future = BoxFuture<Response<HelloReply>, Status>;

    fn call(&mut self, request: Request<HelloRequest>) -> Self::Future {
        let HelloRequest { name } = request.into_inner();
        Box::pin(async move {
            match name.is_empty() {
                true => Err(Status::invalid_argument("a name is needed")),
                false => Ok(Response::new(HelloReply { message: format!("hello {name}") })),
            }
        })
    }
}

impl NamedService for Greeter {
    const NAME: &'static str = "peersock.example.Greeter";
}

impl Service<http::Request<Body>> for Greeter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let greeter = *self;
        Box::pin(async move {
            match request.uri().path() {
                SAY_HELLO => Ok(server::Grpc::new(ProstCodec::default()).unary(greeter, request).await),
                _ => Ok(Status::unimplemented("Greeter has no such method").into_http()),
            }
        })
    }
}

/// The client's side.
#[derive(Clone, Debug)]
pub struct GreeterClient(Grpc<Channel>);

impl GreeterClient {
    /// Calls by way of `channel`.
    pub fn new(channel: Channel) -> GreeterClient {
        GreeterClient(Grpc::new(channel))
    }

    /// Asks for a greeting.
    /// Errors: those of the connection, and what the server answers.
    pub async fn say_hello(&mut self, name: &str) -> Result<String, Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let request = Request::new(HelloRequest { name: name.to_owned() });
        let path = PathAndQuery::from_static(SAY_HELLO);
        let codec: ProstCodec<HelloRequest, HelloReply> = ProstCodec::default();
        Ok(self.0.unary(request, path, codec).await?.into_inner().message)
    }
}
