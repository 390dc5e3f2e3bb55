FROM python:3.12-slim
WORKDIR /srv/flowserver
COPY requirements.lock ./
RUN pip install --no-cache-dir -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps . && useradd --create-home flowserver
USER flowserver
WORKDIR /home/flowserver
EXPOSE 8000
CMD ["flowserver", "serve"]
