//! What stands in `configs/kubernetes` and `configs/compose`: that it fits its schema, that its tunnels
//! are files without a fault, and that it has no right that it does not need.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::Parser;
use hybridwg::cli::args::{Arguments, Command};
use hybridwg::control::config::{self, Config};
use hybridwg::control::ends::Mode;
use hybridwg::flow::tcp;
use serde_json::Value;

use self::schema::Schema;
use super::tidy::with_keys;

mod schema;

const IMAGE: &str = concat!("hybridwg:", env!("CARGO_PKG_VERSION"));

/// The files of a folder, by name, each as its documents.
fn documents(folder: &str) -> BTreeMap<String, Vec<Value>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            let documents = serde_saphyr::from_multiple(&text);
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.insert(
                name,
                documents.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            );
        }
    }
    found
}

/// A file of a tunnel, in which nothing is wrong or odd.
fn tunnel(text: &str, name: &str) -> Config {
    let written =
        config::parse(&with_keys(text), name).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert!(written.warnings.is_empty(), "{name}: {:?}", written.warnings);
    written.config
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text_of(folder: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    fs::read_to_string(path).unwrap()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// One manifest, taken apart.
struct Manifest {
    name: String,
    documents: Vec<Value>,
}

impl Manifest {
    fn all() -> Vec<Self> {
        let files = documents("configs/kubernetes").into_iter();
        let all: Vec<_> = files.map(|(name, documents)| Self { name, documents }).collect();
        assert_eq!(all.len(), 5);
        all
    }

    fn of_kind(&self, kinds: &[&str]) -> &Value {
        let is_it = |document: &&Value| kinds.contains(&document["kind"].as_str().unwrap());
        self.documents.iter().find(is_it).unwrap_or_else(|| panic!("{}: no {kinds:?}", self.name))
    }

    fn pod(&self) -> &Value {
        let workload = self.of_kind(&["Pod", "Deployment", "DaemonSet"]);
        if workload["kind"] == "Pod" {
            &workload["spec"]
        } else {
            &workload["spec"]["template"]["spec"]
        }
    }

    fn containers(&self) -> impl Iterator<Item = &Value> {
        list(self.pod(), "initContainers").chain(list(self.pod(), "containers"))
    }

    fn sidecar(&self) -> &Value {
        self.containers().find(|it| it["name"] == "tunnel").unwrap()
    }

    fn tunnel(&self) -> Config {
        tunnel(self.of_kind(&["ConfigMap"])["data"]["wg0.conf"].as_str().unwrap(), &self.name)
    }

    fn mode(&self) -> Mode {
        self.tunnel().interface.ends.mode.expect("it is said").value
    }
}

#[test]
fn every_manifest_fits_the_schema_of_kubernetes() {
    let schema = Schema::read();
    for Manifest { name, documents } in Manifest::all() {
        for document in &documents {
            assert_eq!(schema.faults(document), [""; 0], "{name}");
        }
    }
}

/// As the Pod Security Standard "restricted" has it, but for CAP_NET_ADMIN and the device where there is
/// an interface.
#[test]
fn n_17_no_container_has_a_right_that_it_does_not_need() {
    for manifest in Manifest::all() {
        let (name, pod) = (&manifest.name, manifest.pod());
        let has_interface = manifest.mode() == Mode::Tun;
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"] == true, !has_interface, "{name}");
        for container in manifest.containers() {
            let rights = &container["securityContext"];
            let is_sidecar = container["name"] == "tunnel";
            assert_eq!(rights["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(rights["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(words(&rights["capabilities"]["drop"]), ["ALL"], "{name}");
            let added = words(&rights["capabilities"]["add"]);
            let needed: &[&str] = if is_sidecar && has_interface { &["NET_ADMIN"] } else { &[] };
            assert_eq!(added, needed, "{name}");
            assert_eq!(rights["runAsUser"] == 0, is_sidecar && has_interface, "{name}");
        }
        for volume in list(pod, "volumes") {
            let is_of_host = !volume["hostPath"].is_null();
            assert!(!is_of_host || has_interface, "{name}: {volume}");
        }
        assert_eq!(pod["hostNetwork"] == true, name == "gateway.yaml", "{name}");
    }
}

#[test]
fn every_tunnel_of_a_manifest_has_its_files_where_they_are_mounted() {
    for manifest in Manifest::all() {
        let (name, sidecar) = (&manifest.name, manifest.sidecar());
        assert_eq!(sidecar["image"], IMAGE, "{name}");
        let volume = |path: &str| {
            let mount = list(sidecar, "volumeMounts").find(|mount| mount["mountPath"] == path);
            let wanted = &mount.unwrap_or_else(|| panic!("{name}: nothing at {path}"))["name"];
            list(manifest.pod(), "volumes").find(|volume| volume["name"] == *wanted).unwrap()
        };
        let map = &manifest.of_kind(&["ConfigMap"])["metadata"]["name"];
        assert_eq!(volume("/etc/wireguard")["configMap"]["name"], *map, "{name}");
        assert!(!volume("/run")["emptyDir"].is_null(), "{name}");
        let key = manifest.tunnel().interface.private_key_file.unwrap().value.to_string();
        let file = key.strip_prefix("/etc/tunnel-key/").unwrap();
        let secret = volume("/etc/tunnel-key")["secret"]["secretName"].as_str().unwrap();
        let made = format!("secret generic {secret} --from-file={file}=");
        assert!(text_of("configs/kubernetes", name).contains(&made), "{name}");
        let is_device = |volume: &Value| volume["hostPath"]["path"] == "/dev/net/tun";
        let has_device = list(manifest.pod(), "volumes").any(is_device);
        assert_eq!(has_device, manifest.mode() == Mode::Tun, "{name}");
    }
}

#[test]
fn every_secret_of_a_manifest_is_made_by_a_command_at_its_top() {
    let mut found = 0;
    for manifest in Manifest::all() {
        let text = text_of("configs/kubernetes", &manifest.name);
        for variable in manifest.containers().flat_map(|it| list(it, "env")) {
            let wanted = &variable["valueFrom"]["secretKeyRef"];
            let Some(secret) = wanted["name"].as_str() else { continue };
            let key = wanted["key"].as_str().unwrap();
            let made = format!("secret generic {secret} --from-literal={key}=");
            assert!(text.contains(&made), "{}: {made}", manifest.name);
            found += 1;
        }
    }
    assert_eq!(found, 1, "the database's password");
}

/// What connections hold is bounded for each thread that moves packets, and so must the container be.
#[test]
fn a_tunnel_may_hold_what_its_connections_may() {
    for manifest in Manifest::all() {
        let (name, sidecar) = (&manifest.name, manifest.sidecar());
        let limit = sidecar["resources"]["limits"]["memory"].as_str().unwrap();
        let (number, unit) = limit.split_at(limit.len() - 2);
        let shift = match unit {
            "Mi" => 20,
            "Gi" => 30,
            _ => panic!("{name}: {limit}"),
        };
        let bytes = number.parse::<usize>().unwrap() << shift;
        let held = tcp::Config::default().budget_bytes;
        assert!(bytes >= held + (128 << 20), "{name}: {limit}");
    }
}

#[test]
fn every_probe_asks_what_there_is_to_ask() {
    for manifest in Manifest::all() {
        let (name, sidecar) = (&manifest.name, manifest.sidecar());
        let health = manifest.tunnel().interface.health.map(|address| address.value);
        let is_plain = name == "sidecar-plain.yaml";
        // Where nobody waits for the other end, a restart for its sake would be all that comes of it.
        let begun = if is_plain { "/healthz" } else { "/startupz" };
        for (probe, option, page) in [
            ("startupProbe", "--startup", begun),
            ("livenessProbe", "--live", "/healthz"),
            ("readinessProbe", "--ready", "/readyz"),
        ] {
            let probe = &sidecar[probe];
            // `hybridwg health` says after three seconds that there is no answer.
            assert!(probe["timeoutSeconds"].as_u64().unwrap() > 3, "{name}");
            if let Some(address) = health {
                let asked = &probe["httpGet"];
                let port = match asked["port"].as_str() {
                    Some(port) => {
                        let ports = list(sidecar, "ports");
                        &ports.into_iter().find(|it| it["name"] == port).unwrap()["containerPort"]
                    }
                    None => &asked["port"],
                };
                assert_eq!(asked["path"], page, "{name}");
                assert_eq!(port.as_u64(), Some(address.port().into()), "{name}");
                // A kubelet asks by the address of the pod, unless told otherwise.
                assert_eq!(address.ip().is_loopback(), asked["host"] == "127.0.0.1", "{name}");
            } else {
                let command = words(&probe["exec"]["command"]);
                assert_eq!(command, ["/hybridwg", "health", option], "{name}");
                let read = Arguments::try_parse_from(command).unwrap();
                assert!(matches!(read.command, Some(Command::Health(_))));
            }
        }
        let is_native =
            list(manifest.pod(), "initContainers").any(|it| it["restartPolicy"] == "Always");
        let is_alone = name == "gateway.yaml";
        assert_eq!(
            is_native,
            !is_plain && !is_alone,
            "{name}: the application waits for the tunnel"
        );
        let patience = sidecar["startupProbe"]["failureThreshold"].as_u64().unwrap();
        assert_eq!(patience >= 86_400, is_native, "{name}: it waits a day for the other end");
    }
}

#[test]
fn n_13_what_is_closed_lets_nothing_out_but_the_tunnel() {
    for manifest in Manifest::all() {
        let config = manifest.tunnel();
        match manifest.name.as_str() {
            "fail-closed.yaml" => {
                assert!(config.interface.kill_switch.unwrap().value);
                assert_eq!(manifest.pod()["dnsPolicy"], "None");
            }
            "fail-closed-rootless.yaml" => {
                let policy = &manifest.of_kind(&["NetworkPolicy"])["spec"];
                let labels = &manifest.of_kind(&["Pod"])["metadata"]["labels"];
                assert_eq!(policy["podSelector"]["matchLabels"], *labels);
                assert_eq!(words(&policy["policyTypes"]), ["Egress"]);
                let [rule] = &policy["egress"].as_array().unwrap()[..] else {
                    panic!("one way out")
                };
                let cidr = rule["to"][0]["ipBlock"]["cidr"].as_str().unwrap();
                let (port, protocol) = (&rule["ports"][0]["port"], &rule["ports"][0]["protocol"]);
                assert_eq!(protocol, "UDP");
                let place = format!("{}:{port}", cidr.strip_suffix("/32").unwrap());
                assert_eq!(config.peers[0].places()[0].to_string(), place);
            }
            _ => {}
        }
    }
}

/// Compose has a schema of its own; these are the keys of it that ours use, and a word that is none of
/// them is a slip.
#[test]
fn every_compose_file_has_keys_that_there_are_and_a_tunnel_without_a_right_too_many() {
    const SERVICE: &[&str] = &[
        "cap_add",
        "cap_drop",
        "command",
        "configs",
        "depends_on",
        "devices",
        "dns",
        "environment",
        "healthcheck",
        "image",
        "network_mode",
        "read_only",
        "restart",
        "secrets",
        "security_opt",
        "shm_size",
        "stop_grace_period",
        "sysctls",
        "tmpfs",
        "user",
        "volumes",
    ];
    let files = documents("configs/compose");
    assert_eq!(files.len(), 2);
    for (name, documents) in files {
        let [file] = &documents[..] else { panic!("{name}: one document") };
        for key in file.as_object().unwrap().keys() {
            assert!(["configs", "secrets", "services", "volumes"].contains(&key.as_str()), "{key}");
        }
        for (service, keys) in file["services"].as_object().unwrap() {
            for key in keys.as_object().unwrap().keys() {
                assert!(SERVICE.contains(&key.as_str()), "{name}: {service}: {key}");
            }
        }
        let sidecar = &file["services"]["tunnel"];
        assert_eq!(sidecar["image"], IMAGE, "{name}");
        assert_eq!(sidecar["configs"][0]["target"], "/etc/wireguard/wg0.conf", "{name}");
        let source = sidecar["configs"][0]["source"].as_str().unwrap();
        let text = text_of("configs/compose", file["configs"][source]["file"].as_str().unwrap());
        let config = tunnel(&text, &name);
        let has_interface = config.interface.ends.mode.expect("it is said").value == Mode::Tun;
        assert_eq!(sidecar["read_only"], true, "{name}");
        assert_eq!(words(&sidecar["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(words(&sidecar["security_opt"]), ["no-new-privileges:true"], "{name}");
        let needed: &[&str] = if has_interface { &["NET_ADMIN"] } else { &[] };
        assert_eq!(words(&sidecar["cap_add"]), needed, "{name}");
        assert_eq!(sidecar["user"], if has_interface { "0:0" } else { "65534:65534" }, "{name}");
        assert_eq!(words(&sidecar["tmpfs"]), ["/run"], "{name}");
        let key = config.interface.private_key_file.unwrap().value.to_string();
        let secret = sidecar["secrets"][0].as_str().unwrap();
        assert_eq!(key, format!("/run/secrets/{secret}"), "{name}");
        assert!(file["secrets"][secret]["file"].is_string(), "{name}");
        let text = text_of("configs/compose", &name);
        for secret in file["secrets"].as_object().unwrap().values() {
            let made = format!("> {}", secret["file"].as_str().unwrap());
            assert!(text.contains(&made), "{name}: {made}");
        }
        let owner = if has_interface { "root" } else { "65534" };
        let given =
            format!("sudo chown {owner} {}", file["secrets"][secret]["file"].as_str().unwrap());
        assert!(text.contains(&given), "{name}: {given}");
        let command = words(&sidecar["healthcheck"]["test"]);
        assert_eq!(command, ["CMD", "/hybridwg", "health"], "{name}");
        assert_eq!(file["services"]["app"]["network_mode"], "service:tunnel", "{name}");
        let condition = &file["services"]["app"]["depends_on"]["tunnel"]["condition"];
        assert_eq!(condition, "service_healthy", "{name}");
    }
}
