//! A host and a pod of a test's own: two unnamed network namespaces, a veth that stands for a NIC,
//! and the real plugin binaries run in the host's. Nothing of it is seen by the machine, and it is
//! gone with the test.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtn_link::Netns;
use serde_json::{Value, json};
use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// The NIC's name and hardware address on the host.
pub(crate) const NIC: &str = "ens1";
pub(crate) const MAC: &str = "02:00:00:00:00:a1";

pub(crate) struct Bench {
    pub(crate) host: Netns,
    pub(crate) pod: Option<Netns>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ifindex: u32,
}

pub(crate) struct Call<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) verb: &'a str,
    pub(crate) key: &'a str,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) failpoint: Option<&'a str>,
    /// `CNI_IFNAME`.
    pub(crate) ifname: &'a str,
    /// `CNI_ARGS` other than the usual.
    pub(crate) args: Option<String>,
    /// `CNI_CONTAINERID` other than the usual.
    pub(crate) container: Option<&'a str>,
    /// Nothing can be written to any file, as on a full disk.
    pub(crate) disk_full: bool,
}

pub(crate) fn plugin(name: &str) -> &'static str {
    match name {
        "vdn-macvlan" => env!("CARGO_BIN_EXE_vdn-macvlan"),
        "vdn-ipam" => env!("CARGO_BIN_EXE_vdn-ipam"),
        "vdn-chain" => env!("CARGO_BIN_EXE_vdn-chain"),
        _ => env!("CARGO_BIN_EXE_vdn-host-device"),
    }
}

impl Bench {
    /// A host with one NIC that is up, has an address and an alias, and its wire's other end.
    pub(crate) fn new() -> Self {
        let mut bench = Self {
            host: Netns::create_unnamed().unwrap(),
            pod: Some(Netns::create_unnamed().unwrap()),
            folder: tempfile::tempdir().unwrap(),
            ifindex: 0,
        };
        bench.ip(&format!(
            "link add {NIC} address {MAC} mtu 9000 type veth peer name wire0"
        ));
        bench.ip("link set wire0 up mtu 9000");
        bench.ip(&format!("link set {NIC} up alias storage"));
        bench.ip(&format!("addr add 192.0.2.7/24 dev {NIC}"));
        bench.ifindex = bench.index_of(NIC);
        bench
    }
    fn index_of(&self, link: &str) -> u32 {
        let index = self.link(link).unwrap()["ifindex"].as_u64().unwrap();
        u32::try_from(index).unwrap()
    }
    /// A second NIC, which is up.
    pub(crate) fn second_nic(&self, name: &str) {
        self.ip(&format!(
            "link add {name} mtu 9000 type veth peer name w-{name}"
        ));
        self.ip(&format!("link set w-{name} up"));
        self.ip(&format!("link set {name} up"));
    }
    pub(crate) fn pod(&self) -> &Netns {
        self.pod.as_ref().unwrap()
    }
    /// `ip` in the host's namespace.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run_in(&self.host, "ip", arguments)
    }
    /// `ip` in the pod's namespace.
    pub(crate) fn ip_in_pod(&self, arguments: &str) -> String {
        run_in(self.pod(), "ip", arguments)
    }
    pub(crate) fn tc_in_pod(&self, arguments: &str) -> String {
        run_in(self.pod(), "tc", arguments)
    }
    /// What iproute2 says of a link of the host.
    pub(crate) fn link(&self, name: &str) -> Option<Value> {
        let all: Vec<Value> = serde_json::from_str(&self.ip("-j -d addr")).unwrap();
        all.into_iter().find(|link| link["ifname"] == name)
    }
    pub(crate) fn link_in_pod(&self, name: &str) -> Option<Value> {
        let all: Vec<Value> = serde_json::from_str(&self.ip_in_pod("-j -d addr")).unwrap();
        all.into_iter().find(|link| link["ifname"] == name)
    }
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("var/lib/dtn")
    }
    pub(crate) fn places(&self) -> dtn_cni::conf::Places {
        dtn_cni::conf::Places::below(self.folder.path())
    }
    /// The record of a pod, as it is on disk.
    pub(crate) fn record(&self, key: &str) -> Value {
        let file = self.state().join(format!("attachments/{key}.json"));
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }
    /// Changes the record of a pod behind everybody's back.
    pub(crate) fn set_record(&self, key: &str, record: &Value) {
        let file = self.state().join(format!("attachments/{key}.json"));
        std::fs::write(file, record.to_string()).unwrap();
    }
    /// Names of the files in a folder of the state, without the probes.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.state().join(folder)) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
    /// The NIC is as it was before any pod had it.
    pub(crate) fn assert_home(&self, why: &str) {
        let nic = self
            .link(NIC)
            .unwrap_or_else(|| panic!("{why}: {NIC} is not home"));
        assert_eq!(nic["address"], MAC, "{why}");
        assert_eq!(nic["mtu"], 9000, "{why}");
        assert_eq!(nic["ifalias"], "storage", "{why}");
        assert!(
            nic["flags"].as_array().unwrap().contains(&json!("UP")),
            "{why}: {nic}"
        );
        let addresses = nic["addr_info"].to_string();
        assert!(addresses.contains("192.0.2.7"), "{why}: {addresses}");
    }
    /// Writes what the supervisor would have prepared for one pod.
    pub(crate) fn prepare(&self, key: &str, class: &str) {
        let interface = self.prepared("data0", class, NIC, "dtn", 2);
        self.prepare_all(key, "podman", &[interface]);
    }
    /// What was prepared for a pod of this engine.
    pub(crate) fn prepare_all(&self, key: &str, engine: &str, interfaces: &[Value]) {
        let folder = self.folder.path().join("run/dtn/prepared");
        std::fs::create_dir_all(&folder).unwrap();
        let prepared = json!({
            "version": 1, "key": key, "prepared_at": "2030-01-01T00:00:00Z",
            "pod": {"uid": key, "name": "p", "namespace": "default", "engine": engine},
            "interfaces": interfaces
        });
        std::fs::write(folder.join(format!("{key}.json")), prepared.to_string()).unwrap();
    }
    /// One interface as it would be prepared, with a lease of this number.
    pub(crate) fn prepared(
        &self,
        ifname: &str,
        class: &str,
        nic: &str,
        network: &str,
        lease: u8,
    ) -> Value {
        let mac = if class == "shared" {
            format!("02:00:00:00:00:b{lease}")
        } else {
            self.link(nic).unwrap()["address"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let time = "2030-01-01T00:00:00Z";
        let slice = "0192f0c0-0000-7000-8000-000000000001";
        let lease = json!({
            "id": format!("0192f0c0-0000-7000-8000-00000000000{lease}"), "slice_id": slice, "client_id": "c",
            "mac": mac,
            "ips": [format!("10.20.0.1{}/24", lease - 1), format!("fd00:20::{:x}/64", lease + 9)], "mtu": 1500,
            "routes": [{"dst": "10.30.0.0/16", "gw": "10.20.0.1"}], "t1": time, "t2": time,
            "expires_at": time, "state": "bound", "version": 1
        });
        json!({
            "ifname": ifname, "network": network, "class": class, "nic_name": nic,
            "nic": {"netns_inode": self.host.inode(), "ifindex": self.index_of(nic)},
            "mac": mac, "mtu": 1500, "leases": [lease],
            "slices": [{"id": slice, "name": "lhc", "class": "guaranteed",
                "rate_bps": 950_000_000, "ends_at": time}],
            "settings": [{"key": "net.ipv4.tcp_slow_start_after_idle", "value": "0", "why": "w"}]
        })
    }
    /// Pins of sandboxes.
    pub(crate) fn pins(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.places().pins()) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
    /// The configuration of a network with these extra keys.
    pub(crate) fn conf(&self, extra: Value) -> Value {
        let root = self.folder.path();
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "dtn", "type": "vdn", "ipam": {"type": "vdn-ipam"},
            "stateDir": self.state(), "runDir": root.join("run/dtn"),
            "socket": root.join("run/dtn/dtnd.sock")
        });
        for (key, value) in extra.as_object().unwrap() {
            conf[key] = value.clone();
        }
        conf
    }
    /// Runs a plugin in the host's namespace.
    pub(crate) fn call(&self, call: &Call<'_>, conf: &Value) -> Output {
        let program = match call.plugin {
            path if path.starts_with('/') => path.to_owned(),
            name => plugin(name).to_owned(),
        };
        let mut command = Command::new("sh");
        let limit = if call.disk_full {
            "trap '' XFSZ; ulimit -f 0; "
        } else {
            ""
        };
        let usual_args = format!("IgnoreUnknown=1;K8S_POD_UID={}", call.key);
        let usual_container = format!("c-{}", call.key);
        command
            .args(["-c", &format!("{limit}exec nsenter \"$@\""), "sh"])
            .arg(format!("--net={}", self.host.proc_path().display()))
            .arg(program)
            .env("CNI_COMMAND", call.verb)
            .env(
                "CNI_CONTAINERID",
                call.container.unwrap_or(&usual_container),
            )
            .env("CNI_IFNAME", call.ifname)
            .env("CNI_PATH", "/usr/lib/cni")
            .env("CNI_ARGS", call.args.as_ref().unwrap_or(&usual_args))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(netns) = &call.netns {
            command.env("CNI_NETNS", netns);
        }
        if let Some(failpoint) = call.failpoint {
            command.env("DTN_FAILPOINT", failpoint);
        }
        let mut child = command.spawn().unwrap();
        // a plugin that refuses early may not read it all
        let _ = child
            .stdin
            .take()
            .unwrap()
            .write_all(conf.to_string().as_bytes());
        child.wait_with_output().unwrap()
    }
    /// A call for this bench's own pod.
    pub(crate) fn verb<'a>(&self, plugin: &'a str, verb: &'a str, key: &'a str) -> Call<'a> {
        let netns = self.pod.as_ref().map(Netns::proc_path);
        Call {
            plugin,
            verb,
            key,
            netns,
            failpoint: None,
            ifname: "data0",
            args: None,
            container: None,
            disk_full: false,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // a test that failed may leave some
        for pin in self.pins() {
            let _ = dtn_link::netns::unbind(&self.places().pins().join(pin));
        }
    }
}

pub(crate) fn run_in(netns: &Netns, program: &str, arguments: &str) -> String {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", netns.proc_path().display()))
        .arg(program)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments}: {error}{text}"
    );
    text
}

/// The JSON of a success.
pub(crate) fn good(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    if text.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap()
    }
}

/// The code of a failure.
pub(crate) fn code(output: &Output) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "a failure was expected: {text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    json["code"].as_u64().unwrap()
}

/// Notes that a test could not run here, for the suite's count.
pub(crate) fn skip(why: &str) {
    eprintln!("skipped: {why}");
    if let Some(file) = std::env::var_os("DTN_SKIPS") {
        let line = format!("skipped: {why}\n");
        let open = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file);
        open.and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap();
    }
}
