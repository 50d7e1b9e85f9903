//! Secure shell, and programs that run over it.

use peersock_testnet::find_in_path;

use crate::common::Running;
use crate::lab::{Lab, sha256};

#[test]
fn ssh_scp_and_rsync_work_over_the_overlay() {
    let test = "ssh_scp_and_rsync_work_over_the_overlay";
    let Some((lab, _server)) = sshd(test, &["scp", "rsync"]) else { return };
    let file = lab.write_random("file", 5_000_000);
    let sum = sha256(&file);
    let got = lab.bash(
        "beta",
        "up 2222
         ssh -F config alpha 'echo $((6*7)); cat >&2; exit 3' < /dev/null || echo $?
         head -c 1000000 file | ssh -F config 10.77.0.1 cat | cmp -n 1000000 - file && echo same
         scp -qF config file alpha:@DIR@/copied
         sha256sum < copied
         scp -qOF config alpha:@DIR@/copied fetched
         sha256sum < fetched
         mkdir tree && cp file tree/a && ln -s a tree/b
         rsync -a -e 'ssh -F config' tree/ alpha:@DIR@/synced/
         rsync -a --delete -e 'ssh -F config' alpha:@DIR@/synced/ back/
         sha256sum < back/b",
    );
    assert_eq!(got.text(), format!("42\n3\nsame\n{sum}  -\n{sum}  -\n{sum}  -\n"));
}

#[test]
fn git_clones_over_ssh_and_over_http() {
    let Some((lab, _server)) = sshd("git_clones_over_ssh_and_over_http", &["git", "python3"]) else { return };
    lab.write_random("file", 2_000_000);
    let _web = lab.start("gamma", &["python3", "-m", "http.server", "--directory", lab.folder(), "8080"]);
    let got = lab.bash(
        "beta",
        "export GIT_CONFIG_GLOBAL=/dev/null GIT_SSH_COMMAND='ssh -F @DIR@/config'
         git init -q repository && cd repository
         cp ../file . && git add file
         git -c user.name=a -c user.email=b commit -qm first
         cd .. && git clone -q --bare repository bare.git
         (cd bare.git && git update-server-info)
         up 2222
         git clone -q alpha:@DIR@/bare.git by-ssh
         cmp file by-ssh/file && echo same
         up 8080 10.77.0.3
         git clone -q http://gamma:8080/bare.git by-http
         cmp file by-http/file && echo same",
    );
    assert_eq!(got.text(), "same\nsame\n");
}

/// Starts a server with fresh keys on port 2222, and writes `config` for its clients.
fn sshd(test: &str, programs: &[&str]) -> Option<(Lab, Running)> {
    let lab = Lab::with(test, &[&["sshd", "ssh", "ssh-keygen"], programs].concat())?;
    for key in ["host", "user"] {
        let mut keygen = std::process::Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(lab.path(key));
        assert!(keygen.status().unwrap().success());
    }
    let server = lab.write(
        "sshd_config",
        "Port 2222
         ListenAddress 0.0.0.0
         ListenAddress ::
         HostKey @DIR@/host
         PidFile none
         AuthorizedKeysFile @DIR@/user.pub
         StrictModes no
         PasswordAuthentication no
         PermitRootLogin yes
         UsePAM no
         UseDNS no
         PrintMotd no
         Subsystem sftp internal-sftp
",
    );
    lab.write(
        "config",
        "Host *
         Port 2222
         IdentityFile @DIR@/user
         IdentitiesOnly yes
         UserKnownHostsFile /dev/null
         StrictHostKeyChecking no
         LogLevel ERROR
",
    );
    let sshd = find_in_path("sshd")?;
    // The package's service creates this folder.
    let _ = std::fs::create_dir("/run/sshd");
    let running = lab.start("alpha", &[sshd.to_str()?, "-D", "-e", "-f", &server]);
    Some((lab, running))
}
