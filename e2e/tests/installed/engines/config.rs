//! Configuration: ConfigMaps and Secrets come back as files of a claim, and stock kubectl turns them into objects again.

use holdfast_e2e::objects::{condition, phase, restore, secret};
use holdfast_e2e::scene::Scene;
use holdfast_e2e::tools;
use holdfast_e2e::volume::{Volume, claim};
use serde_json::{Value, json};

fn settings() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop-env"},
        "data": {"LEVEL": "debug", "app.yaml": "a: 1\nb: ü\n", "empty": ""}, "binaryData": {"logo.png": "iVBORw0KGgoAAP/+"}})
}

#[test]
fn objects_come_back_as_files_of_a_claim() {
    let scene = Scene::new("config");
    scene.space.apply(&settings());
    scene.space.apply(&secret("shop-key", &json!({"token": "not for everyone", "cert.pem": "-----BEGIN-----\n"})));
    let source = json!([{"name": "db", "config": {"configMaps": ["shop-env"], "secrets": ["shop-key"], "allowUnencrypted": true}}]);
    scene.policy_of("settings", &source, &Value::Null);
    scene.backup("monday", "settings");
    scene.space.delete("ConfigMap", "shop-env");
    scene.space.delete("Secret", "shop-key");

    scene.space.apply(&claim("restored"));
    let into = json!([{"source": "db", "config": {"claimName": "restored", "runAs": {"user": 65532, "group": 65532}}}]);
    let restored = scene.try_restore(&restore("files", &json!({"backup": "monday"}), &into));
    assert_eq!(phase(&restored), "Completed", "{restored:#}");

    let files = Volume::open(&scene.space, "restored", 65532);
    let listing = files.sh("find . -type f ! -path './lost+found*' | LC_ALL=C sort");
    let names: Vec<&str> = listing.lines().collect();
    assert_eq!(names.len(), 6, "{listing}");
    let folder = |file: &str| {
        let path = names
            .iter()
            .find(|path| path.ends_with(&format!("/{file}")))
            .unwrap_or_else(|| panic!("{file} in {listing}"));
        path.rsplit_once('/').unwrap().0.to_owned()
    };
    let (map, key) = (folder("app.yaml"), folder("token"));
    assert!(map.ends_with("shop-env") && key.ends_with("shop-key"), "{listing}");
    assert_eq!(
        files.sh(&format!(
            "cat {map}/app.yaml {map}/LEVEL; base64 {map}/logo.png; cat {key}/token {key}/cert.pem; wc -c <{map}/empty"
        )),
        "a: 1\nb: ü\ndebugiVBORw0KGgoAAP/+\nnot for everyone-----BEGIN-----\n0\n"
    );
}

#[test]
fn secrets_are_refused_by_a_store_that_does_not_encrypt_unless_that_is_allowed() {
    let scene = Scene::new("config-secrets");
    scene.space.apply(&secret("shop-key", &json!({"token": "not for everyone"})));
    let source = json!([{"name": "db", "config": {"secrets": ["shop-key"]}}]);
    scene.policy_of("settings", &source, &Value::Null);
    let refused = scene.try_backup("monday", "settings");
    assert_eq!(condition(&refused, "Complete")["reason"], "InvalidConfiguration", "{refused:#}");
    assert!(condition(&refused, "Complete")["message"].as_str().unwrap().contains("allowUnencrypted"), "{refused:#}");
    assert_eq!(scene.bucket.keys(), Vec::<String>::new());
}

#[test]
fn what_a_config_backup_holds_is_a_volume_that_stock_tools_read() {
    let scene = Scene::new("config-tar");
    scene.space.apply(&settings());
    scene.policy_of("settings", &json!([{"name": "db", "config": {"configMaps": ["shop-env"]}}]), &Value::Null);
    let backup = scene.backup("monday", "settings");
    let key = scene.keys_of(&backup).into_iter().find(|key| key.ends_with(".tar.zst")).unwrap();
    let listing = tools::run(&["tar", "--zstd", "-t"], &scene.bucket.read(&key)).text();
    for file in ["shop-env/LEVEL", "shop-env/app.yaml", "shop-env/empty", "shop-env/logo.png"] {
        assert!(listing.lines().any(|line| line.ends_with(file)), "{file} in {listing}");
    }
}
