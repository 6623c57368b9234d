use super::*;

/// Each kind of image is put back in place of each other kind, with all that belongs to it.
#[test]
fn every_image_comes_back_over_every_other() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let path = dir.path().join("it");
    let make: [&dyn Fn(); 3] = [
        &|| {},
        &|| {
            fs::write(&path, "before").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
        },
        &|| std::os::unix::fs::symlink("/nowhere", &path).unwrap(),
    ];
    for before in make {
        for after in make {
            let _ = fs::remove_file(&path);
            before();
            let image = Image::of(&path).unwrap();
            if let Image::File { sha256, .. } = &image {
                fs::copy(&path, blobs.join(sha256)).unwrap();
            }
            let _ = fs::remove_file(&path);
            after();
            assert_eq!(image.restore(&path, &blobs).unwrap(), None);
            assert_eq!(Image::of(&path).unwrap(), image);
            // again is success
            assert_eq!(image.restore(&path, &blobs).unwrap(), None);
        }
    }
}

#[test]
fn a_folder_with_something_in_it_stays_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("result"), "").unwrap();
    let said = Image::Absent.restore(&folder, dir.path()).unwrap().unwrap();
    assert!(said.contains("not empty"));
    fs::remove_file(folder.join("result")).unwrap();
    assert_eq!(Image::Absent.restore(&folder, dir.path()).unwrap(), None);
    assert!(!folder.exists());
}

#[test]
fn a_damaged_blob_is_not_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it");
    fs::write(&path, "before").unwrap();
    let image = Image::of(&path).unwrap();
    let Image::File { sha256, .. } = &image else {
        panic!("{image:?}")
    };
    fs::write(dir.path().join(sha256), "changed").unwrap();
    fs::write(&path, "after").unwrap();
    let error = image.restore(&path, dir.path()).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "after");
}

#[test]
fn attributes_are_part_of_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it");
    fs::write(&path, "x").unwrap();
    if xattr::set(&path, "user.dtn", b"\x00\xff").is_err() {
        // a file system without attributes
        return;
    }
    let image = Image::of(&path).unwrap();
    let Image::File { sha256, owned, .. } = &image else {
        panic!("{image:?}")
    };
    assert_eq!(owned.attributes["user.dtn"], "00ff");
    fs::copy(&path, dir.path().join(sha256)).unwrap();
    fs::remove_file(&path).unwrap();
    image.restore(&path, dir.path()).unwrap();
    assert_eq!(xattr::get(&path, "user.dtn").unwrap().unwrap(), b"\x00\xff");
}

/// On a full disk a part that stays would take the room that the way back needs.
#[test]
fn a_write_that_fails_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it");
    fs::write(&path, "before").unwrap();
    let none = dir.path().join("none");
    put(&path, &Bytes::File(&none), &Owned::default(), None).unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
