//! The stores behind addresses, and the connections to them, which all archives of this process share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, HeaderValue, ObjectStore, RetryConfig};
use percent_encoding::percent_decode_str;
use url::Url;

use super::super::address::Address;
use super::fault::Fault;
use crate::error::{Error, Result};

/// An object and the store that it lies in.
#[derive(Clone)]
pub(super) struct Object {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    pub(super) server: Arc<Server>,
}

/// What the objects of a host or bucket have in common.
#[derive(Default)]
pub(super) struct Server {
    /// When it was given up, and why.
    pub(super) given_up: Mutex<Option<(Instant, Fault)>>,
    /// The store of a bucket, which holds credentials that it renews.
    bucket: Mutex<Option<Arc<dyn ObjectStore>>>,
}

impl Object {
    /// The object with an address. Nothing is asked of the store yet.
    ///
    /// # Errors
    ///
    /// [`Error::BadAddress`], or [`Error::Read`] if the environment has values that are no settings of a store.
    pub(super) fn at(address: &Address) -> Result<Self> {
        let url = Url::parse(address.secret()).map_err(|_| address.bad("it is not a URL"))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| address.bad("it names no host"))?;
        let server = server(&format!("{}://{host}:{:?}", url.scheme(), url.port()));
        let failed = |error: object_store::Error| Error::Read {
            path: address.shown().to_owned(),
            cause: Fault::of(&error).into(),
        };
        if !address.is_s3() {
            let store = Arc::new(http(url).map_err(failed)?);
            return Ok(Self { store, path: Path::default(), server });
        }
        // the name of an object is not encoded in such an address
        let name = address.secret().splitn(4, '/').nth(3).unwrap_or_default();
        let path = Path::parse(name).ok().filter(|path| !name.is_empty() && path.as_ref() == name);
        let path = path.ok_or_else(|| address.bad("it names no object of a bucket"))?;
        let mut bucket = server.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match &*bucket {
            Some(store) => Arc::clone(store),
            None => Arc::clone(bucket.insert(s3(host).map_err(failed)?)),
        };
        drop(bucket);
        Ok(Self { store, path, server })
    }
}

fn server(name: &str) -> Arc<Server> {
    static SERVERS: Mutex<Option<HashMap<String, Arc<Server>>>> = Mutex::new(None);
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(servers.get_or_insert_default().entry(name.to_owned()).or_default())
}

/// The store of one object: its whole address is the root, so that every part of it stays as it was typed.
fn http(mut url: Url) -> object_store::Result<object_store::http::HttpStore> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    let authorization = match (user.as_str(), password.as_str()) {
        ("", "") => None,
        _ => HeaderValue::from_str(&format!("Basic {}", BASE64.encode(format!("{user}:{password}")))).ok(),
    };
    // these fail for addresses without a host alone
    let _ = (url.set_username(""), url.set_password(None));
    url.set_fragment(None);
    HttpBuilder::new()
        .with_url(url)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(once())
        .with_http_connector(Connector { authorization })
        .build()
}

/// A bucket with what the environment says of S3: credentials, region, endpoint (which may be `http://`).
fn s3(bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_allow_http(true)
        .with_retry(once())
        .with_http_connector(Connector { authorization: None });
    Ok(Arc::new(builder.build()?))
}

/// Tries are repeated by `request`, which knows how long is allowed and what may pass.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Makes connections.
#[derive(Debug)]
struct Connector {
    /// What a user name and a password in an address become.
    authorization: Option<HeaderValue>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        static CLIENTS: Mutex<Option<HashMap<String, HttpClient>>> = Mutex::new(None);
        // it fails if there is one already, which is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        // `request` limits the time, by what is delivered
        let options = options.clone().with_timeout_disabled();
        // a client reads the certificates of the system, and keeps connections
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = clients.get_or_insert_default();
        let key = format!("{options:?}");
        let client = match clients.get(&key) {
            Some(client) => client.clone(),
            None => {
                let client = ReqwestConnector::default().connect(&options)?;
                clients.insert(key, client.clone());
                client
            }
        };
        let authorization = self.authorization.clone();
        Ok(HttpClient::new(Told { client, authorization }))
    }
}

/// A client whose errors say what the store answered.
#[derive(Debug)]
struct Told {
    client: HttpClient,
    authorization: Option<HeaderValue>,
}

#[async_trait::async_trait]
impl HttpService for Told {
    async fn call(&self, mut request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert("authorization", authorization.clone());
        }
        // the machine that a cloud asks for credentials, where the environment has none
        let is_metadata = request.uri().host().is_some_and(|host| host == "169.254.169.254");
        let told = |fault| HttpError::new(HttpErrorKind::Unknown, fault);
        if is_metadata {
            return match self.client.execute(request).await {
                Ok(response) if response.status().is_success() => Ok(response),
                Ok(_) | Err(_) => Err(told(Fault::NoCredentials)),
            };
        }
        let response = self.client.execute(request).await?;
        match Fault::of_status(response.status().as_u16()) {
            Some(fault) => Err(told(fault)),
            None => Ok(response),
        }
    }
}
