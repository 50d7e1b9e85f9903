//! Web servers and their clients.

use crate::common::Running;
use crate::lab::{Lab, sha256};

/// Large enough to fill every buffer on the way many times.
const LARGE: usize = 100_000_000;

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
    let sum = sha256(&lab.write_random("large", LARGE));
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
    let three = sha256(&lab_bytes(&lab).repeat(3));
    assert_eq!(got.text(), format!("{sum}  -\n{sum}  -\n{three}  -\n"));
}

fn lab_bytes(lab: &Lab) -> Vec<u8> {
    std::fs::read(lab.path("large")).unwrap()
}

/// Starts nginx with two workers, on port 8080 and with HTTP/2 on 8081.
fn nginx(lab: &Lab, member: &str, daemon: &str, server: &str) -> Running {
    let config = lab.write(
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
    );
    lab.start(member, &["/usr/sbin/nginx", "-c", &config])
}
