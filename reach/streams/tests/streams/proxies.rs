//! Real proxies, in a network whose only way out they are.

use std::fs;
use std::process::Command;
use std::time::Duration;

use peersock_streams::{
    Closed, ConnectError, ConnectOptions, Connection, Connector, ProxySettings, Server, ServerEvent,
    ServerOptions, ServerTls, Target, Timing, Transport,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::common::{TEST_TIMEOUT, identity, patient_client, patient_server, root_key};
use crate::office::{NAME, Office, PROXY, ROOT, skip};

#[test]
fn squid_leads_out_where_nothing_else_does() {
    let Some(mut office) = Office::build("squid_leads_out", &["squid"]) else { return };
    run_squid(&mut office, "");
    office.assert_closed();
    let root = Root::start(&office, 443);
    // Squid's default allows connections to port 443 only. Only the proxy knows the name.
    for host in [NAME, "10.99.2.2"] {
        for transport in [Transport::WebSocket, Transport::Tls, Transport::Tcp] {
            let target = target(transport, host);
            office.client_async(async || {
                converse(&settings("HTTPS_PROXY", "http://10.99.1.1:3128"), &target).await
            });
        }
    }
    office.client_async(async || {
        let error =
            connect(&ProxySettings::none(), &target(Transport::WebSocket, NAME)).await.expect_err("no DNS");
        assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
        assert!(error.to_string().contains("set HTTPS_PROXY"), "{error}");

        let other_port = Target { port: 7420, ..target(Transport::Tls, NAME) };
        let error =
            connect(&settings("ALL_PROXY", "10.99.1.1:3128"), &other_port).await.expect_err("not allowed");
        assert!(error.to_string().contains("use a server at port 443"), "{error}");

        let nobody = target(Transport::Tls, "nobody.test");
        let error =
            connect(&settings("ALL_PROXY", "10.99.1.1:3128"), &nobody).await.expect_err("no such name");
        assert!(error.to_string().contains("the proxy does not reach the server"), "{error}");

        // Squid mistakes the bytes for a request and waits for its rest.
        let proxy = settings("ALL_PROXY", "socks5://10.99.1.1:3128");
        let options =
            ConnectOptions { proxy, step_timeout: Duration::from_secs(1), ..ConnectOptions::default() };
        let error = Connector::new(options).connect(&nobody).await.expect_err("no SOCKS");
        assert!(error.to_string().ends_with("the proxy in HTTPS_PROXY or ALL_PROXY"), "{error}");
    });
    root.stop(6);
}

#[test]
fn squid_asks_who_it_is() {
    let Some(mut office) = Office::build("squid_asks_who", &["squid", "openssl"]) else { return };
    let helper = "/usr/lib/squid/basic_ncsa_auth";
    if !std::path::Path::new(helper).exists() {
        skip("squid_asks_who", &format!("the program {helper} is missing"));
        return;
    }
    let users = office.file("users");
    let hashed =
        Command::new("openssl").args(["passwd", "-apr1", "p@ss:word"]).output().expect("it was found");
    fs::write(&users, format!("me:{}", String::from_utf8_lossy(&hashed.stdout))).expect("a folder");
    let settings_of_squid = format!(
        "auth_param basic program {helper} {}\nauth_param basic realm office\nacl known proxy_auth REQUIRED\n\
         http_access deny !known\n",
        users.display()
    );
    run_squid(&mut office, &settings_of_squid);
    let root = Root::start(&office, 443);
    let target = target(Transport::WebSocket, NAME);
    office.client_async(async || {
        converse(&settings("https_proxy", "http://me:p%40ss%3Aword@10.99.1.1:3128"), &target).await;

        let error =
            connect(&settings("HTTPS_PROXY", "http://10.99.1.1:3128"), &target).await.expect_err("no name");
        let advice = "asks for a user name and password: put them into HTTPS_PROXY as \
                      http://USER:PASSWORD@10.99.1.1:3128";
        assert!(error.to_string().ends_with(advice), "{error}");

        let wrong = settings("HTTPS_PROXY", "http://me:secret@10.99.1.1:3128");
        let error = connect(&wrong, &target).await.expect_err("a wrong password");
        assert!(
            error.to_string().contains("does not accept the user name and password in HTTPS_PROXY"),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("secret"));
    });
    root.stop(1);
}

#[test]
fn tinyproxy_leads_out() {
    let Some(mut office) = Office::build("tinyproxy_leads_out", &["tinyproxy"]) else { return };
    let config = office.file("tinyproxy.conf");
    let text = "Port 8888\nListen 10.99.1.1\nAllow 10.99.1.0/24\nConnectPort 443\nBasicAuth me secret\n";
    fs::write(&config, text).expect("a folder");
    office.run_proxy(8888, "tinyproxy", &["-d", "-c", config.to_str().expect("a name")]);
    let root = Root::start(&office, 443);
    let target = target(Transport::WebSocket, NAME);
    office.client_async(async || {
        converse(&settings("HTTP_PROXY", "http://me:secret@10.99.1.1:8888"), &target).await;
        let error =
            connect(&settings("HTTP_PROXY", "http://10.99.1.1:8888"), &target).await.expect_err("no name");
        assert!(matches!(error, ConnectError::ProxyAuthentication { .. }), "{error:?}");
    });
    root.stop(1);
}

#[test]
fn microsocks_leads_out() {
    let Some(mut office) = Office::build("microsocks_leads_out", &["microsocks"]) else { return };
    office.run_proxy(1080, "microsocks", &["-i", "10.99.1.1", "-p", "1080", "-u", "me", "-P", "secret"]);
    let root = Root::start(&office, 7420);
    office.client_async(async || {
        for (transport, host) in
            [(Transport::Tcp, NAME), (Transport::Tls, "10.99.2.2"), (Transport::WebSocket, NAME)]
        {
            let target = Target { port: 7420, ..target(transport, host) };
            converse(&settings("ALL_PROXY", "socks5h://me:secret@10.99.1.1"), &target).await;
        }
        let target = Target { port: 7420, ..target(Transport::Tcp, NAME) };
        let error =
            connect(&settings("ALL_PROXY", "socks5://10.99.1.1"), &target).await.expect_err("no name");
        assert!(error.to_string().contains("put them into ALL_PROXY as socks5://USER:PASSWORD@"), "{error}");
        let error =
            connect(&settings("ALL_PROXY", "socks5://me:no@10.99.1.1"), &target).await.expect_err("wrong");
        assert!(matches!(error, ConnectError::ProxyCredentials { .. }), "{error:?}");
        let closed = Target { port: 1, ..target };
        let error = connect(&settings("ALL_PROXY", "socks5://me:secret@10.99.1.1"), &closed).await;
        assert!(matches!(error, Err(ConnectError::ProxyRefused { .. })), "{error:?}");
    });
    root.stop(3);
}

#[test]
fn a_cable_that_is_cut_is_noticed_on_both_sides() {
    let Some(mut office) = Office::build("a_cable_that_is_cut", &["microsocks"]) else { return };
    office.run_proxy(1080, "microsocks", &["-i", "10.99.1.1", "-p", "1080"]);
    let root = Root::start(&office, 443);
    let settings = settings("ALL_PROXY", "socks5://10.99.1.1");
    let reason = office.client_async(async || {
        let mut connection =
            connect(&settings, &target(Transport::WebSocket, NAME)).await.expect("connected");
        exchange(&mut connection).await;
        office.cut();
        timeout(TEST_TIMEOUT, connection.recv()).await.expect("it is noticed")
    });
    assert_eq!(reason, Err(Closed::Silent(timing().dead_after)));
    let closed = root.closed.recv_timeout(TEST_TIMEOUT).expect("the root notices, too");
    assert_eq!(
        closed,
        Closed::Silent(timing().dead_after),
        "the proxy does not tell that its client is gone"
    );
    root.stop(1);
}

fn run_squid(office: &mut Office, more: &str) {
    let config = office.file("squid.conf");
    let hosts = office.file("hosts");
    let cache = office.file("cache.log");
    let text = format!(
        "http_port 10.99.1.1:3128\nhosts_file {}\ncache_log {}\naccess_log none\npid_filename none\n\
         cache_mem 8 MB\nmax_filedescriptors 1024\nvisible_hostname office\npinger_enable off\n\
         dns_timeout 1 second\ndns_retransmit_interval 1 second\nshutdown_lifetime 0 seconds\n\
         acl tls port 443\nacl CONNECT method CONNECT\n\
         http_access deny !tls\nhttp_access deny !CONNECT\n{more}http_access allow all\n",
        hosts.display(),
        cache.display(),
    );
    fs::write(&config, text).expect("a folder");
    office.run_proxy(3128, "squid", &["-N", "-f", config.to_str().expect("a name")]);
}

/// A root on the other side of the proxy, which echoes datagrams.
struct Root {
    serving: std::thread::JoinHandle<u64>,
    stop: oneshot::Sender<()>,
    closed: std::sync::mpsc::Receiver<Closed>,
}

impl Root {
    fn start(office: &Office, port: u16) -> Root {
        let (stop, stopped) = oneshot::channel();
        let (tell_closed, closed) = std::sync::mpsc::channel();
        let (tell_ready, ready) = std::sync::mpsc::channel();
        let serving = office.at_root(async move || {
            let tls = ServerTls::new(Some(root_key()), None).expect("a certificate");
            let options = ServerOptions { tls: Some(tls), timing: timing(), ..ServerOptions::default() };
            let mut server = Server::new(patient_server(options));
            server.listen((ROOT, port).into()).await.expect("a free port");
            tell_ready.send(()).expect("somebody waits");
            let handle = server.handle();
            tokio::select! {
                () = serve(&mut server, &tell_closed) => {}
                _ = stopped => {}
            }
            handle.counters().opened.get()
        });
        ready.recv_timeout(TEST_TIMEOUT).expect("the root listens");
        Root { serving, stop, closed }
    }

    /// Ends the root, and asserts the number of opened connections.
    fn stop(self, connections: u64) {
        self.stop.send(()).expect("it runs");
        assert_eq!(self.serving.join().expect("no panic"), connections);
    }
}

async fn serve(server: &mut Server, tell_closed: &std::sync::mpsc::Sender<Closed>) {
    loop {
        match server.recv().await {
            ServerEvent::Opened { id, remote, .. } => {
                assert_eq!(remote.ip().to_string(), "10.99.2.1", "it comes from the proxy");
                assert!(server.handle().admit(id));
            }
            ServerEvent::Datagram { id, datagram } => {
                let _ = server.handle().send(id, datagram);
            }
            ServerEvent::Closed { reason, .. } => {
                let _ = tell_closed.send(reason);
            }
            event => panic!("{event:?}"),
        }
    }
}

fn target(transport: Transport, host: &str) -> Target {
    Target::new(transport, host, 443).with_key(*identity().public().ed25519())
}

fn settings(variable: &str, value: &str) -> ProxySettings {
    assert!(value.contains(&PROXY.to_string()));
    let set = |name: &str| (name == variable).then(|| value.to_owned());
    ProxySettings::from_variables(set).expect("a proxy")
}

/// Returns short timers, so that tests are quick, but far longer than anything takes.
fn timing() -> Timing {
    Timing { keepalive: Duration::from_secs(1), dead_after: Duration::from_secs(5) }
}

async fn connect(proxy: &ProxySettings, target: &Target) -> Result<Connection, ConnectError> {
    let options = ConnectOptions { proxy: proxy.clone(), timing: timing(), ..ConnectOptions::default() };
    timeout(TEST_TIMEOUT, Connector::new(patient_client(options)).connect(target)).await.expect("in time")
}

async fn converse(proxy: &ProxySettings, target: &Target) {
    let mut connection = connect(proxy, target).await.unwrap_or_else(|error| panic!("{target}: {error}"));
    exchange(&mut connection).await;
    let used = connection.proxy().expect("nothing else leads out");
    assert!(used.contains("://10.99.1.1:") && !used.contains('@'), "{used}");
}

/// Sends datagrams and checks their echo.
async fn exchange(connection: &mut Connection) {
    for length in [1, 1400, 16_000] {
        connection.send(vec![length as u8; length]).expect("open");
        let answer = timeout(TEST_TIMEOUT, connection.recv()).await.expect("in time").expect("open");
        assert_eq!(answer, vec![length as u8; length]);
    }
}
