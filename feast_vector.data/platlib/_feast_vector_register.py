"""Makes ``type: vector`` and ``batch_engine: vector`` known to Feast, whichever way Feast is imported.

``feast_vector_register.pth`` imports this at interpreter start. Feast validates ``feature_store.yaml``
before it imports anything of the user's and has no entry points, so its tables of types have to be
amended the moment they exist. Until then all this does is wait for that one import.
"""

import sys

_MODULE = "feast.repo_config"


def _amend(module):
    module.ONLINE_STORE_CLASS_FOR_TYPE.setdefault(
        "vector", "feast_vector.online_store.VectorOnlineStore"
    )
    module.BATCH_ENGINE_CLASS_FOR_TYPE.setdefault(
        "vector", "feast_vector.compute_engine.VectorComputeEngine"
    )


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != _MODULE:
            return None
        sys.meta_path.remove(_Finder)
        try:
            for finder in sys.meta_path:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    _amend_after_execution(spec.loader)
                    return spec
        except Exception:
            pass  # Feast's own import then says what is wrong, if anything is.
        return None


def _amend_after_execution(loader):
    execute = loader.exec_module

    def exec_module(module):
        execute(module)
        try:
            _amend(module)
        except Exception:
            pass  # A Feast without that table: the full class path still works.

    loader.exec_module = exec_module


if _MODULE in sys.modules:
    _amend(sys.modules[_MODULE])
else:
    sys.meta_path.insert(0, _Finder)
