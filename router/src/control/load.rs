//! Reads `router.yaml` and the route files it names.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::route::{RouteFile, UpstreamTrust};
use config::router::RouterConfig;
use config::{ConfigError, ConfigErrors};
use daemon::files;

/// What the files say, as far as they could be read, and everything that is wrong with them.
#[derive(Debug)]
pub struct LoadedConfig {
    /// `router.yaml`.
    pub file: PathBuf,
    /// Its content; `None` if it was refused, and then no route file was read.
    pub router: Option<RouterConfig>,
    /// The route files that were accepted, in the order they are named, folders by file name.
    pub routes: Vec<LoadedRoutes>,
    /// Everything that is wrong with any file.
    pub errors: Vec<ConfigError>,
}

/// A route file and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedRoutes {
    /// The file.
    pub file: Arc<Path>,
    /// Its content.
    pub content: RouteFile,
}

/// Reads all files. One file's errors do not hide another's: `errors` holds them all, names with
/// two owners included.
pub fn load(file: &Path) -> LoadedConfig {
    let mut loaded = LoadedConfig {
        file: file.to_owned(),
        router: None,
        routes: Vec::new(),
        errors: Vec::new(),
    };
    match files::parse(file, RouterConfig::parse) {
        Err(errors) => loaded.errors = errors.errors().to_vec(),
        Ok(router) => {
            loaded.read_routes(&router.routes);
            loaded.router = Some(router);
        }
    }
    loaded
}

impl LoadedConfig {
    /// Every path whose change may change what is loaded: files, and folders for their entries.
    pub fn sources(&self) -> Vec<PathBuf> {
        let mut sources = vec![self.file.clone()];
        if let Some(router) = &self.router {
            sources.extend(router.routes.iter().cloned());
            sources.push(router.certificates.directory.clone());
        }
        let upstreams = self.routes.iter().flat_map(|file| &file.content.upstreams);
        sources.extend(upstreams.filter_map(|upstream| {
            match upstream.tls.as_ref().map(|tls| &tls.trust) {
                Some(UpstreamTrust::Ca(file)) => Some(file.clone()),
                _ => None,
            }
        }));
        sources.sort();
        sources.dedup();
        sources
    }

    fn read_routes(&mut self, paths: &[PathBuf]) {
        // A file may be named twice, by itself and by its folder; read twice it would contradict
        // itself.
        let mut seen = HashSet::new();
        for file in self.route_files(paths) {
            if !seen.insert(fs::canonicalize(&file).unwrap_or_else(|_| file.clone())) {
                continue;
            }
            match files::parse(&file, RouteFile::parse) {
                Ok(content) => self.routes.push(LoadedRoutes {
                    file: file.into(),
                    content,
                }),
                Err(errors) => self.errors.extend_from_slice(errors.errors()),
            }
        }
        let files = self.routes.iter().map(|file| (&*file.file, &file.content));
        if let Err(errors) = config::route::owners(files) {
            self.errors.extend_from_slice(errors.errors());
        }
    }

    fn route_files(&mut self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for path in paths {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            match files::yaml_files(path) {
                Ok(found) => files.extend(found),
                Err(error) => {
                    let errors = ConfigErrors::unreadable(path, &error);
                    self.errors.extend_from_slice(errors.errors());
                }
            }
        }
        files
    }
}
