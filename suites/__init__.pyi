from suites.data_out.data_row import DataRow as DataRow
from suites.data_out.loaded_records import Records as Records
from suites.data_out.loaded_records import load_records as load_records
from suites.schema.refusals import Refused as Refused

__all__ = ["DataRow", "Records", "Refused", "load_records"]
