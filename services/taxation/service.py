"""Taxation: standing, filings, invoices, export rebates."""

from pathlib import Path

from hutong.api.taxation.v1 import service_pb2
from services.kit.department import Room

ROOM = Room("taxation", service_pb2.DESCRIPTOR.services_by_name["TaxationService"], Path(__file__).parent)
