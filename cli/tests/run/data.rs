//! Databases.

use crate::lab::{Lab, is_root};

#[test]
fn redis_answers_its_client_and_its_benchmark() {
    let test = "redis_answers_its_client_and_its_benchmark";
    let Some(lab) = Lab::with(test, &["redis-server", "redis-cli", "redis-benchmark"]) else { return };
    let value = lab.write_random("value", 1_000_000);
    let words = ["redis-server", "--save", "", "--protected-mode", "no", "--bind", "*", "-::*"];
    let _server = lab.start("alpha", &words);
    let got = lab.bash(
        "beta",
        "up 6379
         redis-cli -h alpha -x set key < value
         redis-cli -h 10.77.0.1 strlen key
         redis-cli -h fd77::1 get key > got
         redis-benchmark -h alpha -n 2000 -c 20 -P 4 -t set,get,lrange_100 -q | grep -c 'requests per second'",
    );
    assert_eq!(got.text(), "OK\n1000000\n4\n");
    let got = std::fs::read(lab.path("got")).unwrap();
    assert!(got.strip_suffix(b"\n") == Some(&value), "{} bytes differ", got.len());
}

#[test]
fn memcached_serves_tcp() {
    let Some(lab) = Lab::with("memcached_serves_tcp", &["memcached"]) else { return };
    let _server = lab.start("alpha", &["memcached", "-u", "root", "-U", "0", "-t", "2"]);
    let got = lab.bash(
        "beta",
        r"up 11211
          exec 3<>/dev/tcp/alpha/11211
          printf 'set a 0 0 5\r\nhello\r\nget a\r\nquit\r\n' >&3
          cat <&3",
    );
    assert_eq!(got.text(), "STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n");
}

/// The server refuses to run as root, so this also tests that processes of another user may open sockets.
#[test]
fn postgresql_runs_as_its_own_user() {
    let test = "postgresql_runs_as_its_own_user";
    let Some(lab) = Lab::with(test, &["psql", "pgbench", "runuser"]) else { return };
    let Some(bin) = newest_postgresql() else {
        eprintln!("SKIP {test}: the server of PostgreSQL is not installed");
        return;
    };
    if !is_root() {
        eprintln!("SKIP {test}: needs root, to become the user postgres");
        return;
    }
    let script = lab.write(
        "server",
        &format!(
            "cd @DIR@
             mkdir data && chown postgres data
             cat > start <<'END'
             {bin}/initdb -D data -A trust -U postgres --no-sync > initdb.log &&
             echo 'host all all all trust' >> data/pg_hba.conf &&
             exec {bin}/postgres -D data -F -c listen_addresses='*' -c unix_socket_directories=
END
             touch initdb.log; chown postgres initdb.log
             exec runuser -u postgres -- sh start"
        ),
    );
    let _server = lab.start("alpha", &["sh", &script]);
    let got = lab.bash(
        "beta",
        "export PGHOST=alpha PGUSER=postgres
         up 5432
         try psql -qc ''
         psql -h 10.77.0.1 -Atc 'select client_addr, 6*7 from (select inet_client_addr() as client_addr) a'
         psql -h fd77::1 -Atc \"select length(string_agg(md5(i::text), '')) from generate_series(1, 50000) i\"
         pgbench -qi 2>/dev/null
         pgbench -n -c 4 -j 2 -t 25 2>/dev/null | grep 'actually processed'",
    );
    assert_eq!(got.text(), "10.77.0.2|42\n1600000\nnumber of transactions actually processed: 100/100\n");
}

fn newest_postgresql() -> Option<String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    let folder = folders.filter(|folder| folder.join("postgres").is_file()).max()?;
    Some(folder.to_str()?.to_owned())
}
