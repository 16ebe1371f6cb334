"""nginx.conf as ingress-nginx 1.15 renders it by default, without what needs its Lua or equals nginx's own defaults.

Source: kubernetes/ingress-nginx, `rootfs/etc/nginx/template/nginx.tmpl`. `auth-method` is unset: nginx
makes every subrequest a GET, and `X-Original-URI` reaches the verifier as the client sent it.
"""

MAIN = """\
daemon off;
%(user)s
pid %(prefix)s/nginx.pid;
error_log stderr warn;
worker_processes %(workers)s;
worker_shutdown_timeout 4s;
events { multi_accept on; worker_connections 1024; }

http {
  client_body_temp_path %(prefix)s/client-body;
  proxy_temp_path %(prefix)s/proxy-temp;
  fastcgi_temp_path %(prefix)s/fastcgi-temp;
  uwsgi_temp_path %(prefix)s/uwsgi-temp;
  scgi_temp_path %(prefix)s/scgi-temp;

  access_log %(access_log)s;
  default_type text/html;
  server_tokens off;
  client_body_buffer_size 8k;
  reset_timedout_connection on;
  port_in_redirect off;
  uninitialized_variable_warn off;

  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  map $http_x_request_id $req_id { default $http_x_request_id; "" $request_id; }

%(pools)s

  server {
    listen 127.0.0.1:%(port)s;
    server_name _;

%(locations)s
  }
}
"""

AUTH = """\
    location = %(auth_path)s {
      internal;
      access_log off;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Forwarded-Proto "";
      proxy_set_header X-Request-ID $req_id;
      proxy_set_header Host verifier;
      proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Sent-From "nginx-ingress-controller";
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Auth-Request-Redirect $request_uri;
      proxy_buffering off;
      proxy_buffer_size 4k;
      proxy_buffers 4 4k;
      proxy_ssl_server_name on;
      proxy_http_version 1.1;
      %(reuse)s
      set $target "%(target)s";
      proxy_pass $target;
    }
"""

GUARD = """\
auth_request %(auth_path)s;
      auth_request_set $auth_cookie $upstream_http_set_cookie;
      add_header Set-Cookie $auth_cookie;
      %(headers)s
"""

LOCATION = """\
    location %(match)s {
      %(guard)s
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Request-ID $req_id;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Scheme $scheme;
      proxy_set_header X-Scheme $scheme;
      proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
      proxy_set_header Proxy "";
      proxy_connect_timeout 5s;
      proxy_buffering off;
      proxy_buffer_size 4k;
      proxy_buffers 4 4k;
      proxy_http_version 1.1;
      proxy_next_upstream_tries 3;
      proxy_pass http://%(backend)s;
      proxy_redirect off;
    }
"""
