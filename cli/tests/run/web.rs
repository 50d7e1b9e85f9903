//! Web servers and their clients.

use std::process::Command;

use rustix::process::Signal;

use crate::common::{Running, run, signal};
use crate::lab::{Lab, sha256};

/// Size that fills every buffer on the path many times.
const LARGE_BYTES: usize = 100_000_000;

#[test]
fn curl_and_wget_fetch_from_pythons_server_by_address_and_by_name() {
    let test = "curl_and_wget_fetch_from_pythons_server_by_address_and_by_name";
    let Some(lab) = Lab::with(test, &["python3", "curl", "wget"]) else { return };
    let sum = sha256(&lab.write_random("file", 3_000_000));
    let _server = lab.start("alpha", &["python3", "-m", "http.server", "--bind", "::", "8080"]);
    let got = lab.bash(
        "beta",
        "up 8080
         for host in 10.77.0.1 '[fd77::1]' alpha; do
           curl -gsSf http://$host:8080/file | sha256sum
         done
         wget -qO- http://alpha:8080/file | sha256sum
         wget -qO- 'http://[fd77::1]:8080/file' | sha256sum",
    );
    assert_eq!(got.text(), format!("{sum}  -\n").repeat(5));
}

#[test]
fn nginx_serves_large_files_to_http_1_and_http_2() {
    let Some(lab) = Lab::with("nginx_serves_large_files_to_http_1_and_http_2", &["nginx", "curl"]) else {
        return;
    };
    let large = lab.write_random("large", LARGE_BYTES);
    let sum = sha256(&large);
    let _server = nginx(&lab, "alpha", "off", "root @DIR@;");
    let got = lab.bash(
        "beta",
        "up 8080
         curl -sSf http://alpha:8080/large | sha256sum
         curl -sSf --http2-prior-knowledge 'http://[fd77::1]:8081/large' | sha256sum
         curl -sSf --limit-rate 200M -Z --parallel-immediate -o a -o b -o c http://alpha:8080/large \
           http://alpha:8080/large http://10.77.0.1:8080/large
         cat a b c | sha256sum",
    );
    let three = sha256(&large.repeat(3));
    assert_eq!(got.text(), format!("{sum}  -\n{sum}  -\n{three}  -\n"));
}

#[test]
fn nginx_in_the_background_reloads_passes_requests_on_and_ends_by_signal() {
    let test = "nginx_in_the_background_reloads_passes_requests_on_and_ends_by_signal";
    let Some(lab) = Lab::with(test, &["nginx", "curl"]) else { return };
    let file = lab.write_random("file", 5_000_000);
    let sum = sha256(&file);
    let _origin = nginx(&lab, "alpha", "off", "root @DIR@; location = /who { return 200 old; }");
    let mut proxy = nginx(&lab, "gamma", "on", "location / { proxy_pass http://10.77.0.1:8080; }");
    proxy.end_stdin();
    let script = "up 8080 10.77.0.1; up 8080 10.77.0.3
         curl -sSf http://gamma:8080/file | sha256sum
         curl -sSf --data-binary @file -o body http://gamma:8080/who || true
         curl -sSf http://gamma:8080/who; echo";
    assert_eq!(lab.bash("beta", script).text(), format!("{sum}  -\nold\n"));

    nginx_config(&lab, "alpha", "off", "root @DIR@; location = /who { return 200 new; }");
    nginx_config(
        &lab,
        "gamma",
        "on",
        "location / { proxy_pass http://alpha; } }
        upstream alpha { server 10.77.0.1:8080; keepalive 4;",
    );
    for member in ["alpha", "gamma"] {
        let pid = std::fs::read_to_string(lab.path(&format!("{member}.pid"))).unwrap();
        signal(Signal::HUP, pid.trim().parse().unwrap());
    }
    let script = "try eval '[ $(curl -s http://gamma:8080/who) = new ]'
         curl -sSf http://gamma:8080/file | sha256sum";
    assert_eq!(lab.bash("beta", script).text(), format!("{sum}  -\n"));
    // The started program ended long ago, and the launcher waits for its daemon.
    signal(Signal::TERM, proxy.id());
    proxy.finish().success();
}

#[test]
fn nginx_speaks_tls_to_curl_and_nodes_server_answers_its_client() {
    let test = "nginx_speaks_tls_to_curl_and_nodes_server_answers_its_client";
    let Some(lab) = Lab::with(test, &["nginx", "curl", "openssl", "node"]) else { return };
    let sum = sha256(&lab.write_random("file", 3_000_000));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
    ]);
    openssl.arg(lab.path("key")).arg("-out").arg(lab.path("certificate"));
    run({
        openssl.args(["-days", "2", "-subj", "/CN=alpha", "-addext", "subjectAltName=DNS:alpha"]);
        openssl
    })
    .success();
    let tls =
        "root @DIR@; listen 8443 ssl; ssl_certificate @DIR@/certificate; ssl_certificate_key @DIR@/key;";
    let _server = nginx(&lab, "alpha", "off", tls);
    let server = lab.write(
        "server.js",
        "require('http').createServer((request, response) => {
           let size = 0
           request.on('data', (data) => { size += data.length })
           request.on('end', () => response.end(request.socket.remoteAddress + ' ' + size))
         }).listen(8080)",
    );
    let _node = lab.start("gamma", &["node", &server]);
    lab.write(
        "client.js",
        "const options = { host: 'gamma', port: 8080, method: 'POST', family: 4 }
         const request = require('http').request(options, (response) => response.pipe(process.stdout))
         request.end(Buffer.alloc(1234567))",
    );
    let got = lab.bash(
        "beta",
        "up 8443; up 8080 10.77.0.3
         curl -sSf --cacert certificate https://alpha:8443/file | sha256sum
         node client.js; echo
         curl -sSf --data-binary @file http://10.77.0.3:8080/; echo",
    );
    assert_eq!(got.text(), format!("{sum}  -\n::ffff:10.77.0.2 1234567\n::ffff:10.77.0.2 3000000\n"));
}

/// Starts nginx with two workers, on port 8080 and with HTTP/2 on 8081.
fn nginx(lab: &Lab, member: &str, daemon: &str, server: &str) -> Running {
    let config = nginx_config(lab, member, daemon, server);
    lab.start(member, &["/usr/sbin/nginx", "-c", &config])
}

fn nginx_config(lab: &Lab, member: &str, daemon: &str, server: &str) -> String {
    lab.write(
        &format!("{member}.conf"),
        &format!(
            "daemon {daemon};
             worker_processes 2;
             pid @DIR@/{member}.pid;
             error_log @DIR@/{member}.error;
             events {{}}
             http {{
               access_log off;
               sendfile on;
               tcp_nopush on;
               client_body_temp_path @DIR@/{member}.body;
               proxy_temp_path @DIR@/{member}.proxy;
               fastcgi_temp_path @DIR@/{member}.fastcgi;
               uwsgi_temp_path @DIR@/{member}.uwsgi;
               scgi_temp_path @DIR@/{member}.scgi;
               server {{
                 listen 8080;
                 listen [::]:8080;
                 listen 8081 http2;
                 listen [::]:8081 http2;
                 {server}
               }}
             }}"
        ),
    )
}
