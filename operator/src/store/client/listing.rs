//! Listings to their last page, and the proof that they do not contradict themselves. Talks to S3; the proof is pure.
//!
//! What is not in a listing may look as if it were gone, so a listing in doubt is an error and never a shorter listing.

use std::cmp::Ordering;
use std::collections::HashSet;

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use holdfast_crds::Reason;
use jiff::Timestamp;

use super::{Bucket, ObjectInfo};
use crate::task::Failure;

pub(super) async fn all(bucket: &Bucket, prefix: &str) -> Result<Vec<ObjectInfo>, Failure> {
    let mut listing = Listing::new(prefix);
    let mut token: Option<String> = None;
    loop {
        let page = page(bucket, prefix, |request| request.set_continuation_token(token.clone())).await?;
        let next = listing.add(Page::from(page)).map_err(|why| {
            Failure::new(
                Reason::ListIncomplete,
                format!("{}: the listing of {prefix} is in doubt: {why}", bucket.words),
            )
        })?;
        match next {
            Some(next) => token = Some(next),
            None => return Ok(listing.objects),
        }
    }
}

pub(super) async fn is_empty(bucket: &Bucket, prefix: &str) -> Result<bool, Failure> {
    let page = Page::from(page(bucket, prefix, |request| request.max_keys(1)).await?);
    Ok(page.objects.is_empty() && page.count.is_none_or(|count| count == 0) && !page.truncated)
}

pub(super) async fn folders(bucket: &Bucket, prefix: &str) -> Result<Vec<String>, Failure> {
    let page = page(bucket, prefix, |request| request.delimiter("/")).await?;
    let name = |folder: &str| Some(folder.strip_prefix(prefix)?.strip_suffix('/')?.to_owned());
    Ok(page.common_prefixes().iter().filter_map(|folder| name(folder.prefix()?)).collect())
}

/// Asks for one page of what begins with `prefix`, in the shape that the caller gives the request.
async fn page(
    bucket: &Bucket,
    prefix: &str,
    shape: impl Fn(ListObjectsV2FluentBuilder) -> ListObjectsV2FluentBuilder,
) -> Result<ListObjectsV2Output, Failure> {
    let what = format!("list {prefix}");
    let result = bucket.retrying(&what, || async {
        let request = shape(bucket.client.list_objects_v2().bucket(&*bucket.name).prefix(prefix));
        bucket.within(request.send()).await
    });
    result.await.map_err(|t| bucket.failure(&what, &t))
}

/// What counts of one page.
#[derive(Clone, Debug, Default)]
struct Page {
    objects: Vec<ObjectInfo>,
    count: Option<i64>,
    truncated: bool,
    next: Option<String>,
}

impl From<ListObjectsV2Output> for Page {
    fn from(output: ListObjectsV2Output) -> Self {
        let object = |o: &aws_sdk_s3::types::Object| ObjectInfo {
            key: o.key().unwrap_or_default().to_owned(),
            size: o.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            modified: o.last_modified().and_then(|at| Timestamp::from_second(at.secs()).ok()),
            storage_class: o.storage_class().map(|class| class.as_str().to_owned()),
        };
        Self {
            objects: output.contents().iter().map(object).collect(),
            count: output.key_count().map(i64::from),
            truncated: output.is_truncated().unwrap_or_default(),
            next: output.next_continuation_token().filter(|token| !token.is_empty()).map(str::to_owned),
        }
    }
}

struct Listing<'a> {
    prefix: &'a str,
    objects: Vec<ObjectInfo>,
    tokens: HashSet<String>,
    /// Whether the keys so far ascend by their bytes, as S3 promises.
    by_bytes: bool,
    /// Whether they ascend folder by folder, as stores that keep objects in a tree of folders give them.
    by_folders: bool,
}

impl<'a> Listing<'a> {
    fn new(prefix: &'a str) -> Self {
        Self { prefix, objects: Vec::new(), tokens: HashSet::new(), by_bytes: true, by_folders: true }
    }

    /// Takes the next page; gives the token of the one after it.
    fn add(&mut self, page: Page) -> Result<Option<String>, String> {
        if let Some(count) = page.count
            && usize::try_from(count) != Ok(page.objects.len())
        {
            return Err(format!("a page says it has {count} keys and has {}", page.objects.len()));
        }
        for object in page.objects {
            if !object.key.starts_with(self.prefix) {
                return Err(format!("{} does not begin with the prefix", object.key));
            }
            if let Some(last) = self.objects.last() {
                self.by_bytes &= last.key < object.key;
                self.by_folders &= by_folders(&last.key, &object.key) == Ordering::Less;
                if !self.by_bytes && !self.by_folders {
                    return Err(format!("{} comes after {}", object.key, last.key));
                }
            }
            self.objects.push(object);
        }
        match (page.truncated, page.next) {
            (false, _) => Ok(None),
            (true, None) => Err("a page says that there are more and not where".to_owned()),
            (true, Some(token)) if !self.tokens.insert(token.clone()) => {
                Err("a page is told to follow itself".to_owned())
            }
            (true, Some(token)) => Ok(Some(token)),
        }
    }
}

fn by_folders(one: &str, other: &str) -> Ordering {
    one.split('/').cmp(other.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[&str], next: Option<&str>) -> Page {
        let object = |key: &&str| ObjectInfo { key: (*key).to_owned(), size: 1, modified: None, storage_class: None };
        let objects = keys.iter().map(object).collect();
        Page {
            objects,
            count: Some(i64::try_from(keys.len()).unwrap()),
            truncated: next.is_some(),
            next: next.map(str::to_owned),
        }
    }

    fn read(pages: Vec<Page>) -> Result<usize, String> {
        let mut listing = Listing::new("p/");
        for page in pages {
            if listing.add(page)?.is_none() {
                return Ok(listing.objects.len());
            }
        }
        Err("more pages wanted".to_owned())
    }

    #[test]
    fn whole_listings_are_taken_in_either_order() {
        assert_eq!(read(vec![page(&[], None)]), Ok(0));
        assert_eq!(read(vec![page(&["p/a", "p/b"], Some("1")), page(&["p/c"], None)]), Ok(3));
        assert_eq!(read(vec![page(&["p/db-2/x", "p/db/x"], None)]), Ok(2), "by bytes");
        assert_eq!(read(vec![page(&["p/db/x", "p/db-2/x"], None)]), Ok(2), "folder by folder");
    }

    #[test]
    fn contradictions_are_found() {
        for (what, pages) in [
            ("the same page again", vec![page(&["p/a", "p/b"], Some("1")), page(&["p/a", "p/b"], None)]),
            (
                "a token that leads back",
                vec![page(&["p/a"], Some("1")), page(&["p/b"], Some("1")), page(&["p/c"], None)],
            ),
            ("no order", vec![page(&["p/a/x", "p/c/x", "p/b/x"], None)]),
            ("a key twice", vec![page(&["p/a", "p/a"], None)]),
            ("a key of elsewhere", vec![page(&["p/a", "q/a"], None)]),
            ("more, but not where", vec![Page { next: None, ..page(&["p/a"], Some("1")) }]),
            ("fewer keys than it says", vec![Page { count: Some(2), ..page(&["p/a"], None) }]),
        ] {
            assert!(read(pages).is_err(), "{what}");
        }
    }
}
