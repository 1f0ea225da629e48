//! What goes when objects go: data only where it was asked for, and a namespace is never held up.

use holdfast_e2e::objects::{backup, condition};
use holdfast_e2e::scene::Scene;
use holdfast_e2e::wait::{seconds, wait_for};
use serde_json::{Value, json};

const LITTLE: &str = "create table t as select i from generate_series(1, 10) i";

#[test]
fn a_deleted_backup_takes_its_data_along_only_where_it_says_so() {
    let scene = Scene::new("deletion-policy");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    let stays = scene.backup("stays", "shop");
    let mut goes = backup("goes", "shop");
    goes["spec"]["deletionPolicy"] = json!("Delete");
    scene.space.apply(&goes);
    let is_complete = |b: &Value| condition(b, "Complete")["status"] == "True";
    let goes = scene.space.wait("Backup", "goes", "is complete", seconds(90), is_complete);
    assert_eq!(scene.keys_of(&goes).len(), 2);
    let keys = scene.keys_of(&stays);

    for name in ["stays", "goes"] {
        scene.space.delete("Backup", name);
        scene.space.wait_gone("Backup", name, seconds(90));
    }

    assert_eq!(scene.keys_of(&goes), Vec::<String>::new());
    assert_eq!(scene.keys_of(&stays), keys);
}

#[test]
fn a_namespace_with_backups_that_delete_their_data_goes_at_once_and_the_data_stays() {
    let scene = Scene::new("namespace-goes");
    let database = scene.postgres.seed(LITTLE);
    scene.policy("shop", &database, &Value::Null);
    let mut object = backup("held", "shop");
    object["spec"]["deletionPolicy"] = json!("Delete");
    scene.space.apply(&object);
    let held = scene
        .space
        .wait("Backup", "held", "is complete", seconds(90), |b| condition(b, "Complete")["status"] == "True");
    let keys = scene.keys_of(&held);

    scene.space.delete_now();

    let namespace = scene.space.name();
    // Whatever else the platform has to take away at that time; one that is held up stays for ever.
    wait_for("the namespace is gone", seconds(180), || {
        holdfast_e2e::cluster::cluster()
            .get("Namespace", "", namespace)
            .map_or(Ok(()), |n| Err(format!("{:#}", n["status"])))
    });
    assert_eq!(scene.keys_of(&held), keys);
}
